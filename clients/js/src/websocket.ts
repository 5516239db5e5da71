import { read, type Connection, type End, type Hears } from "./way.js";

export function openWebSocket(url: string, Socket: typeof WebSocket, hears: Hears): Connection {
  const socket = new Socket(url.replace(/^http/, "ws"), "tidings.v1");
  let opened = false;
  let over = false;
  const end = (code: number, reason: string) => {
    if (over) return;
    over = true;
    const told: End = { opened, code, reason: sentence(code) };
    const after = retryAfter(reason);
    if (after !== undefined) told.retryAfterMs = after;
    hears.ended(told);
  };
  socket.onopen = () => {
    opened = true;
    if (!over) hears.opened();
  };
  socket.onmessage = (event: MessageEvent) => {
    if (over) return;
    hears.heard();
    if (typeof event.data === "string") read(event.data, hears);
  };
  // A close always follows, and says more.
  socket.onerror = () => {};
  socket.onclose = (event: CloseEvent) => end(event.code, event.reason);
  return {
    sends: true,
    send: (frame) => {
      if (socket.readyState === 1) socket.send(JSON.stringify(frame));
    },
    close: () => {
      over = true;
      socket.close(1000);
    },
  };
}

function retryAfter(reason: string): number | undefined {
  try {
    const told: unknown = JSON.parse(reason).retry_after_ms;
    return typeof told === "number" && told >= 0 ? told : undefined;
  } catch {
    return undefined;
  }
}

function sentence(code: number): string {
  const known: Record<number, string> = {
    1000: "the session was ended",
    1001: "the replica leaves",
    1012: "the replica leaves",
    1013: "the replica asks to try again later",
    4400: "the server did not understand us",
    4401: "the token is missing, wrong or expired",
    4403: "the token does not allow these topics",
    4408: "we took too long to read",
    4409: "a limit of sessions is reached",
    4413: "a frame of ours was too large",
    4429: "we sent too many frames",
  };
  return known[code] ?? "the connection was lost";
}
