// Server-sent events over fetch, so that the token travels in a header.

import { Problem } from "./problem.js";
import { read, type Connection, type End, type Hears } from "./way.js";

/** A line is a frame at most; a server that sends a longer one is none of ours. */
const LINE_CHARS_MAX = 16 << 20;

export function openEvents(
  url: string,
  headers: Record<string, string>,
  ask: typeof fetch,
  hears: Hears,
): Connection {
  const abort = new AbortController();
  let opened = false;
  let over = false;
  const end = (code: number, reason: string, retryAfterMs?: number) => {
    if (over) return;
    over = true;
    abort.abort();
    const told: End = { opened, code, reason };
    if (retryAfterMs !== undefined) told.retryAfterMs = retryAfterMs;
    hears.ended(told);
  };
  const run = async () => {
    const init: RequestInit = { headers, signal: abort.signal, cache: "no-store", credentials: "omit" };
    const response = await ask(url, init);
    if (!response.ok || !response.body) {
      const problem = await Problem.of(response);
      return end(response.status, problem.message, problem.retryAfterMs);
    }
    opened = true;
    if (!over) hears.opened();
    const lines = new Lines(hears);
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (over) return;
      if (done) return end(1012, "the stream ended");
      hears.heard();
      lines.push(decoder.decode(value, { stream: true }));
    }
  };
  run().catch((error) => end(0, Problem.unreachable(error).message));
  return {
    sends: false,
    send: () => {},
    close: () => {
      over = true;
      abort.abort();
    },
  };
}

/** The event stream, of which only `data` matters: a frame says itself what it is. */
class Lines {
  private rest = "";
  private data: string[] = [];

  constructor(private readonly hears: Hears) {}

  push(text: string): void {
    this.rest += text;
    let from = 0;
    for (let at; (at = this.rest.indexOf("\n", from)) >= 0; from = at + 1) {
      const line = this.rest.slice(from, at);
      this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
    }
    this.rest = this.rest.slice(from);
    if (this.rest.length > LINE_CHARS_MAX) throw new Error("a line without an end");
  }

  private line(line: string): void {
    if (line.startsWith("data:")) {
      this.data.push(line.slice(line[5] === " " ? 6 : 5));
    } else if (line === "" && this.data.length) {
      const text = this.data.join("\n");
      this.data = [];
      read(text, this.hears);
    }
  }
}
