// Keeps one connection: opens it, watches it, and opens another one when it is lost.
//
//            token, address, way                welcome
//   idle ──────────────▶ connecting ──────────────────────▶ open
//                          ▲    │ lost                        │ lost
//                          │    ▼                             │
//      pause, `online`, the page is seen again                │
//                        waiting ◀────────────────────────────┘
//
// What the server will not take however often it is asked ends in `refused`.

import type { Http } from "./http.js";
import type { Options, State, Way } from "./options.js";
import { Problem } from "./problem.js";
import { openEvents } from "./sse.js";
import type { Session } from "./session.js";
import type { Connection, End, Hears } from "./way.js";
import { openWebSocket } from "./websocket.js";
import type { ServerFrame, Welcome } from "./wire.js";

const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 20_000;
/** A connection that held so long was well, and its loss is followed by the short pause again. */
const WELL_AFTER_MS = 5_000;
/** From the start to `welcome`. */
const OPEN_WITHIN_MS = 10_000;
/** How long a question to a silent server may go unanswered. */
const ANSWER_WITHIN_MS = 5_000;
/** After a WebSocket did not get through so often, the other way is tried. */
const BLOCKED_AFTER = 2;
const BLOCKED_FOR_MS = 5 * 60_000;
/** What a replica asks for; nobody is kept away for longer. */
const RETRY_AFTER_MAX_MS = 60_000;
/** Addresses that are longer do not fit everywhere. */
const URL_CHARS_MAX = 6_000;

export class Link {
  state: State = { status: "idle", degraded: false };
  private connection: Connection | undefined;
  /** Counts attempts: what an older one still says is not heard. */
  private attempt = 0;
  private failures = 0;
  private tried = 0;
  private blocked = 0;
  private blockedUntil = 0;
  private unauthenticated = 0;
  private openedAt = 0;
  private heardAt = 0;
  private heartbeatMs = 15_000;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watch: ReturnType<typeof setTimeout> | undefined;
  private readonly listeners = new Set<(state: State) => void>();

  constructor(private readonly http: Http, private readonly session: Session, private readonly options: Options) {}

  listen(listener: (state: State) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  /** Connects unless it has. */
  start(): void {
    if (this.state.status === "idle" || this.state.status === "refused") {
      this.failures = this.tried = this.unauthenticated = 0;
      void this.connect();
    }
  }

  stop(): void {
    this.drop();
    this.session.lost();
    this.become({ status: "idle", degraded: false });
  }

  /** Something says that now is a good moment: the network is back, or somebody looks. */
  wake(): void {
    if (this.state.status === "waiting") {
      void this.connect();
    } else if (this.state.status === "open" && Date.now() - this.heardAt > this.heartbeatMs) {
      this.question();
    }
  }

  /** Topics were added. */
  wanted(): void {
    if (this.state.status !== "open" || !this.connection) return this.start();
    if (this.connection.sends) return this.session.subscribe();
    // This way knows the topics that it began with.
    if (this.session.apart.length) {
      this.session.lost();
      void this.connect();
    }
  }

  private become(state: State): void {
    this.state = state;
    for (const listener of [...this.listeners]) {
      try {
        listener(state);
      } catch (error) {
        this.session.complain(error);
      }
    }
  }

  private drop(): void {
    this.attempt += 1;
    clearTimeout(this.timer);
    clearTimeout(this.watch);
    this.connection?.close();
    this.connection = undefined;
  }

  private way(): Way {
    const Socket = this.options.WebSocket ?? globalThis.WebSocket;
    const ways = (this.options.ways ?? ["ws", "sse"]).filter((way) => way === "sse" || Socket);
    if (ways[0] === "ws" && ways.includes("sse")) {
      const isBlocked = this.blocked >= BLOCKED_AFTER && Date.now() < this.blockedUntil;
      return isBlocked ? "sse" : "ws";
    }
    return ways[0] ?? "sse";
  }

  private async connect(): Promise<void> {
    this.drop();
    const attempt = this.attempt;
    const way = this.way();
    this.become({ status: "connecting", way, degraded: false, ...(this.state.error !== undefined && { error: this.state.error }) });
    this.watch = setTimeout(() => attempt === this.attempt && this.lost(way, late()), OPEN_WITHIN_MS);
    let token: string | undefined;
    try {
      token = await this.http.credential(this.unauthenticated > 0);
      if (way === "sse") await this.beginTopics();
    } catch (error) {
      if (attempt !== this.attempt) return;
      return this.lost(way, { opened: true, code: error instanceof Problem ? error.status : 0, reason: String((error as Error)?.message ?? error) });
    }
    if (attempt !== this.attempt) return;
    try {
      this.connection = way === "ws" ? this.openSocket(token, attempt) : this.openStream(token, attempt);
    } catch (error) {
      this.lost(way, { opened: false, code: 0, reason: String((error as Error)?.message ?? error) });
    }
  }

  private openSocket(token: string | undefined, attempt: number): Connection {
    let resumed = this.session.resume();
    const query = { topics: resumed.topics.length ? resumed.topics.join(",") : undefined, cursor: resumed.cursor };
    let url = this.http.url("/v1/ws", token === undefined ? query : {});
    if (url.length > URL_CHARS_MAX) {
      // Each then brings its own cursor.
      resumed = { cursor: resumed.cursor, topics: [] };
      url = this.http.url("/v1/ws", { cursor: resumed.cursor });
    }
    const Socket = (this.options.WebSocket ?? globalThis.WebSocket)!;
    const hears = this.hears("ws", attempt, (welcome) => {
      // A server in dev mode asks nobody who he is, and takes no hello.
      const greeted = token === undefined || (welcome as { ref?: unknown }).ref === 0;
      const joined = greeted ? resumed : { cursor: undefined, topics: [] };
      this.session.opened(welcome, joined, (frame) => this.connection?.send(frame));
    });
    const connection = openWebSocket(url, Socket, hears);
    hears.opened = () => {
      if (token !== undefined) connection.send({ op: "hello", ref: 0, token, topics: resumed.topics, ...(resumed.cursor !== undefined && { cursor: resumed.cursor }) });
    };
    return connection;
  }

  private openStream(token: string | undefined, attempt: number): Connection {
    const { cursor, topics } = this.session.lowest();
    const url = this.http.url("/v1/sse", { topics: topics.length ? topics.join(",") : undefined, cursor });
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const hears = this.hears("sse", attempt, (welcome) => this.session.opened(welcome, { cursor, topics }));
    return openEvents(url, headers, this.options.fetch ?? ((...all) => globalThis.fetch(...all)), hears);
  }

  /** A stream has one cursor for all: whoever has none is told where now is, and how its task stands. */
  private async beginTopics(): Promise<void> {
    for (const one of this.session.apart) {
      if (one.position !== undefined) continue;
      try {
        const page = await this.http.ask<{ messages: ServerFrame[]; cursor: string }>("GET", "/v1/messages", { query: { topic: one.topic } });
        one.begin(page.cursor);
        for (const message of page.messages) this.session.frame(message);
      } catch (error) {
        if (!(error instanceof Problem) || error.passes || error.status === 401) throw error;
        one.fail(error);
      }
    }
  }

  private hears(way: Way, attempt: number, welcomed: (welcome: Welcome) => void): Hears {
    const current = () => attempt === this.attempt;
    return {
      opened: () => {},
      heard: () => {
        if (current()) this.heardAt = Date.now();
      },
      frame: (frame) => {
        if (!current()) return;
        if (frame.type === "welcome") this.welcome(way, frame, welcomed);
        else if (frame.type === "status") this.become({ ...this.state, degraded: frame.status !== "ok" });
        else if (frame.type === "token_expired") void this.renew(way, attempt);
        else if (frame.type === "error" && frame.ref === 0) return;
        else this.session.frame(frame);
      },
      ended: (end) => {
        if (current()) this.lost(way, end);
      },
    };
  }

  private welcome(way: Way, welcome: Welcome, welcomed: (welcome: Welcome) => void): void {
    this.heardAt = this.openedAt = Date.now();
    this.heartbeatMs = welcome.heartbeat_s * 1000;
    if (way === "ws") this.blocked = 0;
    this.tried = 0;
    this.unauthenticated = 0;
    const { replica, session, user, topics } = welcome;
    welcomed(welcome);
    this.guard();
    this.become({ status: "open", way, replica, session, user, topics, degraded: false });
  }

  /** Looks whether the server is still there: each heartbeat says so. */
  private guard(): void {
    clearTimeout(this.watch);
    const limit = this.heartbeatMs * 2.5;
    const look = () => {
      const silent = Date.now() - this.heardAt;
      if (silent >= limit) this.question();
      else this.watch = setTimeout(look, limit - silent);
    };
    this.watch = setTimeout(look, limit);
  }

  /** A machine that slept has heard nothing for long, and may be well connected all the same. */
  private question(): void {
    clearTimeout(this.watch);
    const [asked, attempt] = [Date.now(), this.attempt];
    this.connection?.send({ op: "ping" });
    this.watch = setTimeout(() => {
      if (attempt !== this.attempt) return;
      if (this.heardAt >= asked) this.guard();
      else this.lost(this.state.way ?? "ws", { opened: true, code: 1006, reason: "the server went silent" });
    }, ANSWER_WITHIN_MS);
  }

  private async renew(way: Way, attempt: number): Promise<void> {
    if (typeof this.options.token !== "function") return;
    try {
      const token = await this.http.credential(true);
      if (attempt !== this.attempt || token === undefined) return;
      if (way === "ws") return this.connection?.send({ op: "auth", ref: -1, token });
      this.session.lost();
      await this.connect();
    } catch {
      // The session ends with its token, and is opened anew with another one.
    }
  }

  private lost(way: Way, end: End): void {
    this.drop();
    this.session.lost(end.code === 4403 || end.code === 403);
    const held = this.openedAt > 0 && Date.now() - this.openedAt >= WELL_AFTER_MS;
    if (held) this.failures = 0;
    this.openedAt = 0;
    if (way === "ws" && !end.opened) {
      this.blocked += 1;
      if (this.blocked >= BLOCKED_AFTER) this.blockedUntil = Date.now() + BLOCKED_FOR_MS;
    } else if (way === "sse" && !end.opened && end.code === 0) {
      // Nothing gets through: it is not the WebSocket's fault.
      this.blocked = 0;
    }
    if (end.code === 4401 || end.code === 401) this.unauthenticated += 1;
    const tokenIsFixed = typeof this.options.token !== "function";
    const never = (this.unauthenticated > 0 && tokenIsFixed) || this.unauthenticated > 2 || [4400, 4413, 400].includes(end.code);
    if (never) return this.become({ status: "refused", degraded: false, error: end.reason });
    this.http.elsewhere();
    this.tried += 1;
    const pause = this.pause(end);
    this.timer = setTimeout(() => void this.connect(), pause);
    this.become({ status: "waiting", retryAt: Date.now() + pause, degraded: false, error: end.reason });
  }

  private pause(end: End): number {
    if (end.retryAfterMs !== undefined) return Math.min(end.retryAfterMs, RETRY_AFTER_MAX_MS);
    if (this.tried < this.http.count) return Math.random() * 100;
    const step = Math.min(PAUSE_MIN_MS * 2 ** this.failures, PAUSE_MAX_MS);
    this.failures += 1;
    return Math.min(step * (1 + Math.random() / 2), PAUSE_MAX_MS);
  }
}

function late(): End {
  return { opened: false, code: 0, reason: "the server did not answer in time" };
}
