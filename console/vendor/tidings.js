// The JavaScript client of Tidings, made from clients/js. MIT OR Apache-2.0.

// src/problem.ts
var Problem = class _Problem extends Error {
  constructor(code, status, detail, errors = [], retryAfterMs, cursor) {
    super(errors.length ? errors.map((e) => `${e.pointer}: ${e.detail}`).join("; ") : detail);
    this.code = code;
    this.status = status;
    this.errors = errors;
    this.retryAfterMs = retryAfterMs;
    this.cursor = cursor;
  }
  code;
  status;
  errors;
  retryAfterMs;
  cursor;
  name = "Problem";
  /** Whether the same may succeed later. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status === 503 || this.status === 408;
  }
  static unreachable(error) {
    const cause = error instanceof Error ? error.message : String(error);
    return new _Problem("unreachable", 0, `the server cannot be reached (${cause})`);
  }
  static async of(response) {
    let told = {};
    try {
      const value = JSON.parse(await response.text());
      if (value && typeof value === "object") told = value;
    } catch {
    }
    const type = typeof told.type === "string" ? told.type : "";
    const after = Number(response.headers.get("retry-after"));
    return new _Problem(
      type.slice(type.lastIndexOf("/") + 1) || `http-${response.status}`,
      response.status,
      String(told.detail ?? told.title ?? `the server answered ${response.status}`),
      Array.isArray(told.errors) ? told.errors : [],
      after > 0 ? after * 1e3 : void 0,
      typeof told.cursor === "string" ? told.cursor : void 0
    );
  }
};

// src/http.ts
var TIMEOUT_MS = 3e4;
var TRY_FOR_MS = 2e4;
var PAUSE_MS = 300;
var Http = class {
  constructor(url, options) {
    this.options = options;
    const list = (Array.isArray(url) ? url : [url]).map((one) => one.replace(/\/+$/, ""));
    if (list.length === 0) throw new TypeError("an address is needed");
    this.addresses = list;
    this.fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }
  options;
  addresses;
  turn = 0;
  token;
  fetch;
  get address() {
    return this.addresses[this.turn % this.addresses.length];
  }
  get count() {
    return this.addresses.length;
  }
  /** The next one, since this one did not answer. */
  elsewhere() {
    this.turn += 1;
  }
  /** The token in hand, or a fresh one. */
  credential(fresh = false) {
    if (fresh || this.token === void 0) {
      const source = this.options.token;
      const asked = Promise.resolve().then(() => typeof source === "function" ? source() : source);
      this.token = asked;
      asked.catch(() => {
        if (this.token === asked) this.token = void 0;
      });
    }
    return this.token;
  }
  /** The address of a path, with who asks in dev mode. */
  url(path2, query = {}, address = this.address) {
    const parameters = new URLSearchParams();
    const named = this.options.user !== void 0 ? { ...query, user: this.options.user } : query;
    for (const [name, value] of Object.entries(named)) {
      if (value === void 0 || value === null) continue;
      for (const one of Array.isArray(value) ? value : [value]) parameters.append(name, String(one));
    }
    const text = parameters.toString();
    return address + path2 + (text ? `?${text}` : "");
  }
  /** One answer. Fails with a `Problem`. */
  async ask(method, path2, ask = {}) {
    let response = await this.once(method, path2, ask, false);
    if (response.status === 401 && typeof this.options.token === "function") {
      response = await this.once(method, path2, ask, true);
    }
    if (!response.ok) throw await Problem.of(response);
    if (response.status === 204) return void 0;
    try {
      return await response.json();
    } catch (error) {
      throw Problem.unreachable(error);
    }
  }
  /** The same until it is answered: for what carries an idempotency key. */
  async insist(method, path2, ask) {
    const until = Date.now() + TRY_FOR_MS;
    for (let pause = PAUSE_MS; ; pause = Math.min(pause * 2, 4e3)) {
      try {
        return await this.ask(method, path2, ask);
      } catch (error) {
        const wait = error instanceof Problem ? error.retryAfterMs ?? pause : pause;
        const lasting = !(error instanceof Problem) || !error.passes || ask.signal?.aborted;
        if (lasting || Date.now() + wait > until) throw error;
        this.elsewhere();
        await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      }
    }
  }
  async once(method, path2, ask, fresh) {
    const token = await this.credential(fresh);
    const headers = {};
    if (token) headers.authorization = `Bearer ${token}`;
    if (ask.body !== void 0) headers["content-type"] = "application/json";
    const limit = AbortSignal.timeout(ask.timeoutMs ?? TIMEOUT_MS);
    const init = { method, headers, credentials: "omit", cache: "no-store" };
    if (ask.body !== void 0) init.body = JSON.stringify(ask.body);
    init.signal = ask.signal ? AbortSignal.any([ask.signal, limit]) : limit;
    try {
      return await this.fetch(this.url(path2, ask.query), init);
    } catch (error) {
      if (ask.signal?.aborted) throw ask.signal.reason;
      throw Problem.unreachable(error);
    }
  }
};
function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// src/inbox.ts
var SEEN_MAX = 1e3;
var TELL_AFTER_MS = 100;
var IDS_MAX = 1e3;
var Inbox = class {
  /** @internal */
  constructor(http, start, complain) {
    this.http = http;
    this.start = start;
    this.complain = complain;
  }
  http;
  start;
  complain;
  followers = /* @__PURE__ */ new Set();
  seen = /* @__PURE__ */ new Set();
  received = [];
  timer;
  /** Hears of notices, as they come and those that were missed. Returns how to end it. */
  follow(handlers) {
    this.followers.add(handlers);
    this.start();
    return () => void this.followers.delete(handlers);
  }
  list(query = {}) {
    return this.http.ask("GET", "/v1/inbox", { query });
  }
  counts() {
    return this.http.ask("GET", "/v1/inbox/counts");
  }
  /** Which notices, or all; the answer says what is left. */
  markReceived(which) {
    return this.mark("received", which);
  }
  markRead(which) {
    return this.mark("read", which);
  }
  markConfirmed(which) {
    return this.mark("confirmed", which);
  }
  mark(state, which) {
    const body = which === "all" ? { all: true } : { ids: which };
    return this.http.insist("POST", `/v1/inbox/${state}`, { body });
  }
  /** @internal A message on one of the user's own topics. */
  message(message) {
    const data = message.data;
    for (const follower of [...this.followers]) {
      try {
        if (message.kind === "inbox.counts") follower.onCounts?.({ unread: data.unread, unconfirmed: data.unconfirmed });
        else if (message.kind === "notice.recalled") follower.onRecall?.(data.id);
        else if (message.kind === "notice" && !this.seen.has(data.id)) follower.onNotice?.(data, message);
      } catch (error) {
        this.complain(error);
      }
    }
    if (message.kind === "notice" && this.followers.size) this.acknowledge(data.id);
  }
  /** Again too if it came again: then the server has not heard of it. */
  acknowledge(id) {
    this.seen.add(id);
    if (this.seen.size > SEEN_MAX) for (const oldest of this.seen) {
      this.seen.delete(oldest);
      break;
    }
    this.received.push(id);
    this.timer ??= setTimeout(() => {
      this.timer = void 0;
      const ids = [...new Set(this.received.splice(0, IDS_MAX))];
      this.markReceived(ids).catch((error) => this.complain(error));
    }, TELL_AFTER_MS);
  }
};

// src/way.ts
function read(text, hears) {
  let frame;
  try {
    frame = JSON.parse(text);
  } catch {
    return;
  }
  if (frame && typeof frame === "object" && "type" in frame) hears.frame(frame);
}

// src/sse.ts
var LINE_CHARS_MAX = 16 << 20;
function openEvents(url, headers, ask, hears) {
  const abort = new AbortController();
  let opened = false;
  let over = false;
  const end = (code, reason, retryAfterMs) => {
    if (over) return;
    over = true;
    abort.abort();
    const told = { opened, code, reason };
    if (retryAfterMs !== void 0) told.retryAfterMs = retryAfterMs;
    hears.ended(told);
  };
  const run = async () => {
    const init = { headers, signal: abort.signal, cache: "no-store", credentials: "omit" };
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
    for (; ; ) {
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
    send: () => {
    },
    close: () => {
      over = true;
      abort.abort();
    }
  };
}
var Lines = class {
  constructor(hears) {
    this.hears = hears;
  }
  hears;
  rest = "";
  data = [];
  push(text) {
    this.rest += text;
    let from = 0;
    for (let at; (at = this.rest.indexOf("\n", from)) >= 0; from = at + 1) {
      const line = this.rest.slice(from, at);
      this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
    }
    this.rest = this.rest.slice(from);
    if (this.rest.length > LINE_CHARS_MAX) throw new Error("a line without an end");
  }
  line(line) {
    if (line.startsWith("data:")) {
      this.data.push(line.slice(line[5] === " " ? 6 : 5));
    } else if (line === "" && this.data.length) {
      const text = this.data.join("\n");
      this.data = [];
      read(text, this.hears);
    }
  }
};

// src/websocket.ts
function openWebSocket(url, Socket, hears) {
  const socket = new Socket(url.replace(/^http/, "ws"), "tidings.v1");
  let opened = false;
  let over = false;
  const end = (code, reason) => {
    if (over) return;
    over = true;
    const told = { opened, code, reason: sentence(code) };
    const after = retryAfter(reason);
    if (after !== void 0) told.retryAfterMs = after;
    hears.ended(told);
  };
  socket.onopen = () => {
    opened = true;
    if (!over) hears.opened();
  };
  socket.onmessage = (event) => {
    if (over) return;
    hears.heard();
    if (typeof event.data === "string") read(event.data, hears);
  };
  socket.onerror = () => {
  };
  socket.onclose = (event) => end(event.code, event.reason);
  return {
    sends: true,
    send: (frame) => {
      if (socket.readyState === 1) socket.send(JSON.stringify(frame));
    },
    close: () => {
      over = true;
      socket.close(1e3);
    }
  };
}
function retryAfter(reason) {
  try {
    const told = JSON.parse(reason).retry_after_ms;
    return typeof told === "number" && told >= 0 ? told : void 0;
  } catch {
    return void 0;
  }
}
function sentence(code) {
  const known = {
    1e3: "the session was ended",
    1001: "the replica leaves",
    1012: "the replica leaves",
    1013: "the replica asks to try again later",
    4400: "the server did not understand us",
    4401: "the token is missing, wrong or expired",
    4403: "the token does not allow these topics",
    4408: "we took too long to read",
    4409: "a limit of sessions is reached",
    4413: "a frame of ours was too large",
    4429: "we sent too many frames"
  };
  return known[code] ?? "the connection was lost";
}

// src/link.ts
var PAUSE_MIN_MS = 500;
var PAUSE_MAX_MS = 2e4;
var WELL_AFTER_MS = 5e3;
var OPEN_WITHIN_MS = 1e4;
var ANSWER_WITHIN_MS = 5e3;
var BLOCKED_AFTER = 2;
var BLOCKED_FOR_MS = 5 * 6e4;
var RETRY_AFTER_MAX_MS = 6e4;
var URL_CHARS_MAX = 6e3;
var Link = class {
  constructor(http, session, options) {
    this.http = http;
    this.session = session;
    this.options = options;
  }
  http;
  session;
  options;
  state = { status: "idle", degraded: false };
  connection;
  /** Counts attempts: what an older one still says is not heard. */
  attempt = 0;
  failures = 0;
  tried = 0;
  blocked = 0;
  blockedUntil = 0;
  unauthenticated = 0;
  openedAt = 0;
  heardAt = 0;
  heartbeatMs = 15e3;
  timer;
  watch;
  listeners = /* @__PURE__ */ new Set();
  listen(listener) {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  /** Connects unless it has. */
  start() {
    if (this.state.status === "idle" || this.state.status === "refused") {
      this.failures = this.tried = this.unauthenticated = 0;
      void this.connect();
    }
  }
  stop() {
    this.drop();
    this.session.lost();
    this.become({ status: "idle", degraded: false });
  }
  /** Something says that now is a good moment: the network is back, or somebody looks. */
  wake() {
    if (this.state.status === "waiting") {
      void this.connect();
    } else if (this.state.status === "open" && Date.now() - this.heardAt > this.heartbeatMs) {
      this.question();
    }
  }
  /** Topics were added. */
  wanted() {
    if (this.state.status !== "open" || !this.connection) return this.start();
    if (this.connection.sends) return this.session.subscribe();
    if (this.session.apart.length) {
      this.session.lost();
      void this.connect();
    }
  }
  become(state) {
    this.state = state;
    for (const listener of [...this.listeners]) {
      try {
        listener(state);
      } catch (error) {
        this.session.complain(error);
      }
    }
  }
  drop() {
    this.attempt += 1;
    clearTimeout(this.timer);
    clearTimeout(this.watch);
    this.connection?.close();
    this.connection = void 0;
  }
  way() {
    const Socket = this.options.WebSocket ?? globalThis.WebSocket;
    const ways = (this.options.ways ?? ["ws", "sse"]).filter((way) => way === "sse" || Socket);
    if (ways[0] === "ws" && ways.includes("sse")) {
      const isBlocked = this.blocked >= BLOCKED_AFTER && Date.now() < this.blockedUntil;
      return isBlocked ? "sse" : "ws";
    }
    return ways[0] ?? "sse";
  }
  async connect() {
    this.drop();
    const attempt = this.attempt;
    const way = this.way();
    this.become({ status: "connecting", way, degraded: false, ...this.state.error !== void 0 && { error: this.state.error } });
    this.watch = setTimeout(() => attempt === this.attempt && this.lost(way, late()), OPEN_WITHIN_MS);
    let token;
    try {
      token = await this.http.credential(this.unauthenticated > 0);
      if (way === "sse") await this.beginTopics();
    } catch (error) {
      if (attempt !== this.attempt) return;
      return this.lost(way, { opened: true, code: error instanceof Problem ? error.status : 0, reason: String(error?.message ?? error) });
    }
    if (attempt !== this.attempt) return;
    try {
      this.connection = way === "ws" ? this.openSocket(token, attempt) : this.openStream(token, attempt);
    } catch (error) {
      this.lost(way, { opened: false, code: 0, reason: String(error?.message ?? error) });
    }
  }
  openSocket(token, attempt) {
    let resumed = this.session.resume();
    const query = { topics: resumed.topics.length ? resumed.topics.join(",") : void 0, cursor: resumed.cursor };
    let url = this.http.url("/v1/ws", token === void 0 ? query : {});
    if (url.length > URL_CHARS_MAX) {
      resumed = { cursor: resumed.cursor, topics: [] };
      url = this.http.url("/v1/ws", { cursor: resumed.cursor });
    }
    const Socket = this.options.WebSocket ?? globalThis.WebSocket;
    const hears = this.hears("ws", attempt, (welcome) => {
      const greeted = token === void 0 || welcome.ref === 0;
      const joined = greeted ? resumed : { cursor: void 0, topics: [] };
      this.session.opened(welcome, joined, (frame) => this.connection?.send(frame));
    });
    const connection = openWebSocket(url, Socket, hears);
    hears.opened = () => {
      if (token !== void 0) connection.send({ op: "hello", ref: 0, token, topics: resumed.topics, ...resumed.cursor !== void 0 && { cursor: resumed.cursor } });
    };
    return connection;
  }
  openStream(token, attempt) {
    const { cursor, topics } = this.session.lowest();
    const url = this.http.url("/v1/sse", { topics: topics.length ? topics.join(",") : void 0, cursor });
    const headers = token === void 0 ? {} : { authorization: `Bearer ${token}` };
    const hears = this.hears("sse", attempt, (welcome) => this.session.opened(welcome, { cursor, topics }));
    return openEvents(url, headers, this.options.fetch ?? ((...all) => globalThis.fetch(...all)), hears);
  }
  /** A stream has one cursor for all: whoever has none is told where now is, and how its task stands. */
  async beginTopics() {
    for (const one of this.session.apart) {
      if (one.position !== void 0) continue;
      try {
        const page = await this.http.ask("GET", "/v1/messages", { query: { topic: one.topic } });
        one.begin(page.cursor);
        for (const message of page.messages) this.session.frame(message);
      } catch (error) {
        if (!(error instanceof Problem) || error.passes || error.status === 401) throw error;
        one.fail(error);
      }
    }
  }
  hears(way, attempt, welcomed) {
    const current = () => attempt === this.attempt;
    return {
      opened: () => {
      },
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
      }
    };
  }
  welcome(way, welcome, welcomed) {
    this.heardAt = this.openedAt = Date.now();
    this.heartbeatMs = welcome.heartbeat_s * 1e3;
    if (way === "ws") this.blocked = 0;
    this.tried = 0;
    this.unauthenticated = 0;
    const { replica, session, user, topics } = welcome;
    welcomed(welcome);
    this.guard();
    this.become({ status: "open", way, replica, session, user, topics, degraded: false });
  }
  /** Looks whether the server is still there: each heartbeat says so. */
  guard() {
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
  question() {
    clearTimeout(this.watch);
    const [asked, attempt] = [Date.now(), this.attempt];
    this.connection?.send({ op: "ping" });
    this.watch = setTimeout(() => {
      if (attempt !== this.attempt) return;
      if (this.heardAt >= asked) this.guard();
      else this.lost(this.state.way ?? "ws", { opened: true, code: 1006, reason: "the server went silent" });
    }, ANSWER_WITHIN_MS);
  }
  async renew(way, attempt) {
    if (typeof this.options.token !== "function") return;
    try {
      const token = await this.http.credential(true);
      if (attempt !== this.attempt || token === void 0) return;
      if (way === "ws") return this.connection?.send({ op: "auth", ref: -1, token });
      this.session.lost();
      await this.connect();
    } catch {
    }
  }
  lost(way, end) {
    this.drop();
    this.session.lost(end.code === 4403 || end.code === 403);
    const held = this.openedAt > 0 && Date.now() - this.openedAt >= WELL_AFTER_MS;
    if (held) this.failures = 0;
    this.openedAt = 0;
    if (way === "ws" && !end.opened) {
      this.blocked += 1;
      if (this.blocked >= BLOCKED_AFTER) this.blockedUntil = Date.now() + BLOCKED_FOR_MS;
    } else if (way === "sse" && !end.opened && end.code === 0) {
      this.blocked = 0;
    }
    if (end.code === 4401 || end.code === 401) this.unauthenticated += 1;
    const tokenIsFixed = typeof this.options.token !== "function";
    const never = this.unauthenticated > 0 && tokenIsFixed || this.unauthenticated > 2 || [4400, 4413, 400].includes(end.code);
    if (never) return this.become({ status: "refused", degraded: false, error: end.reason });
    this.http.elsewhere();
    this.tried += 1;
    const pause = this.pause(end);
    this.timer = setTimeout(() => void this.connect(), pause);
    this.become({ status: "waiting", retryAt: Date.now() + pause, degraded: false, error: end.reason });
  }
  pause(end) {
    if (end.retryAfterMs !== void 0) return Math.min(end.retryAfterMs, RETRY_AFTER_MAX_MS);
    if (this.tried < this.http.count) return Math.random() * 100;
    const step = Math.min(PAUSE_MIN_MS * 2 ** this.failures, PAUSE_MAX_MS);
    this.failures += 1;
    return Math.min(step * (1 + Math.random() / 2), PAUSE_MAX_MS);
  }
};
function late() {
  return { opened: false, code: 0, reason: "the server did not answer in time" };
}

// src/memory.ts
var WRITE_AFTER_MS = 200;
var TOPICS_MAX = 200;
var CursorMemory = class {
  constructor(storage, key2) {
    this.storage = storage;
    this.key = key2;
    if (!storage) return;
    try {
      const kept = JSON.parse(storage.getItem(key2) ?? "{}");
      for (const [topic, cursor] of Object.entries(kept)) {
        if (typeof cursor === "string") this.cursors.set(topic, cursor);
      }
    } catch {
    }
  }
  storage;
  key;
  cursors = /* @__PURE__ */ new Map();
  timer;
  latest = [];
  get(topic) {
    return this.cursors.get(topic);
  }
  changed(subscriptions) {
    if (!this.storage) return;
    this.latest = subscriptions;
    this.timer ??= setTimeout(() => this.write(), WRITE_AFTER_MS);
  }
  /** Now: the page may be going. */
  write() {
    clearTimeout(this.timer);
    this.timer = void 0;
    if (!this.storage) return;
    for (const one of this.latest) {
      const { topic, cursor } = one;
      if (!one.remembers || cursor === void 0) continue;
      this.cursors.delete(topic);
      this.cursors.set(topic, cursor);
    }
    for (const oldest of this.cursors.keys()) {
      if (this.cursors.size <= TOPICS_MAX) break;
      this.cursors.delete(oldest);
    }
    try {
      this.storage.setItem(this.key, JSON.stringify(Object.fromEntries(this.cursors)));
    } catch {
    }
  }
};

// src/cursor.ts
function place(cursor) {
  const at = cursor.lastIndexOf("-");
  const seq = Number(cursor.slice(at + 1));
  return { epoch: cursor.slice(0, Math.max(at, 0)), seq: Number.isSafeInteger(seq) ? seq : 0 };
}
function precedes(a, b) {
  const [one, other] = [place(a), place(b)];
  return one.epoch === other.epoch && one.seq < other.seq;
}
function later(a, b) {
  if (a === void 0 || b === void 0) return b ?? a;
  return precedes(b, a) ? a : b;
}
function matches(pattern, topic) {
  return pattern.endsWith("*") ? topic.startsWith(pattern.slice(0, -1)) : topic === pattern;
}
function isTask(pattern) {
  return pattern.startsWith("task:") && !pattern.endsWith("*");
}

// src/subscription.ts
var WAITING_MAX = 1e3;
var SEEN_MAX2 = 65536;
var REPLAYS_MAX = 1e3;
var Subscription = class {
  constructor(topic, handlers, home, cursor) {
    this.topic = topic;
    this.handlers = handlers;
    this.home = home;
    this.own = cursor;
    if (cursor !== void 0) this.floor = place(cursor);
    this.ready = new Promise((resolve, reject) => [this.resolve, this.reject] = [resolve, reject]);
    this.ready.catch(() => {
    });
  }
  topic;
  handlers;
  home;
  /** @internal */
  standing = "apart";
  /** @internal Asked for before, without a refusal. */
  accepted = false;
  /** Resolves once the server has said yes. */
  ready;
  resolve;
  reject;
  /** Up to here everything was had, while it is not joined. */
  own;
  /** Had beyond the cursor. */
  seen = /* @__PURE__ */ new Set();
  replays = /* @__PURE__ */ new Set();
  floor;
  /** @internal Of a task: how it stands. */
  last;
  waiting = [];
  inHand;
  /** Before the first message that an iterator has not done with. */
  undoneFrom;
  takers = [];
  iterated = false;
  failure;
  /** Where to go on from another time: all before it was handed out. */
  get cursor() {
    return this.inHand || this.waiting.length ? this.undoneFrom : this.position;
  }
  /** @internal Up to here everything was received, whether or not somebody took it. */
  get position() {
    return this.standing === "joined" ? later(this.own, this.home.cursor) : this.own;
  }
  get remembers() {
    return this.handlers.remember ?? !isTask(this.topic);
  }
  unsubscribe() {
    if (this.standing === "over") return;
    this.standing = "over";
    this.resolve();
    this.home.left(this);
    for (const take of this.takers.splice(0)) take({ done: true, value: void 0 });
  }
  /** One consumer: what one has taken no other is given. Leaving the loop ends the subscription. */
  [Symbol.asyncIterator]() {
    this.iterated = true;
    return {
      next: () => this.next(),
      return: () => {
        this.unsubscribe();
        return Promise.resolve({ done: true, value: void 0 });
      }
    };
  }
  next() {
    this.undoneFrom = this.inHand?.cursor ?? this.undoneFrom;
    const message = this.waiting.shift();
    this.inHand = message;
    if (message) {
      if (this.standing === "behind" && this.waiting.length === 0) {
        this.standing = "apart";
        this.home.caughtUp(this);
      }
      return Promise.resolve({ done: false, value: message });
    }
    if (this.failure) return Promise.reject(this.failure);
    if (this.standing === "over") return Promise.resolve({ done: true, value: void 0 });
    return new Promise((resolve) => this.takers.push(resolve));
  }
  /** @internal A message of the session. Returns nothing: whoever had it is not told again. */
  offer(message, epoch) {
    if (this.standing === "over" || this.standing === "behind") return;
    if (!matches(this.topic, message.topic) || this.had(message, epoch)) return;
    this.note(message, epoch);
    if (this.handlers.onMessage) this.tell(() => this.handlers.onMessage(message));
    if (this.handlers.onMessage && !this.iterated) return;
    if (!this.inHand && this.waiting.length === 0) this.undoneFrom = this.position;
    const take = this.takers.shift();
    if (take) {
      this.inHand = message;
      return take({ done: false, value: message });
    }
    this.waiting.push(message);
    if (this.waiting.length >= WAITING_MAX) {
      this.own = message.cursor ?? this.position;
      this.standing = "behind";
      this.home.behind(this);
    }
  }
  had({ seq, replay, topic }, epoch) {
    if (seq === null) return false;
    if (replay) return this.replays.has(`${topic} ${seq}`);
    if (this.floor && this.floor.epoch === epoch && seq <= this.floor.seq) return true;
    return this.seen.has(seq);
  }
  note(message, epoch) {
    const { seq, replay, topic } = message;
    if (seq === null) return;
    if (replay) {
      this.replays.add(`${topic} ${seq}`);
      if (this.replays.size > REPLAYS_MAX) forget(this.replays);
    } else if (isTask(this.topic) && epoch !== void 0) {
      this.floor = { epoch, seq };
      this.last = message;
    } else {
      this.seen.add(seq);
      if (this.seen.size > SEEN_MAX2) forget(this.seen);
    }
  }
  /** @internal The session's cursor went on: what lies below it need not be remembered. */
  reached(cursor) {
    if (this.standing !== "joined" || isTask(this.topic)) return;
    if (!this.floor || this.floor.epoch !== cursor.epoch || this.floor.seq < cursor.seq) this.floor = cursor;
    for (const seq of this.seen) if (seq <= cursor.seq) this.seen.delete(seq);
  }
  /** @internal */
  joined() {
    this.standing = "joined";
    this.accepted = true;
    this.resolve();
  }
  /** @internal The server says yes; with a cursor of its own, what it missed is still to come. */
  agreed(replaying) {
    if (!replaying) return this.joined();
    this.standing = "replaying";
    this.accepted = true;
    this.resolve();
  }
  /** @internal */
  apart() {
    if (this.standing === "over" || this.standing === "behind") return;
    if (this.standing === "joined") this.own = later(this.own, this.home.cursor);
    this.standing = "apart";
  }
  /** @internal Begins at what is so now, as an answer told it. */
  begin(cursor) {
    this.own ??= cursor;
  }
  /** @internal */
  reset(reset) {
    this.own = reset.cursor;
    this.floor = place(reset.cursor);
    this.seen.clear();
    if (isTask(this.topic)) this.own = this.floor = void 0;
    if (this.handlers.onReset) this.tell(() => this.handlers.onReset(reset));
  }
  /** @internal */
  gap(gap) {
    if (matches(this.topic, gap.topic) && this.handlers.onGap) this.tell(() => this.handlers.onGap(gap));
  }
  /** @internal */
  fail(problem) {
    if (this.standing === "over") return;
    this.standing = "over";
    this.failure = problem;
    this.reject(problem);
    this.home.left(this);
    for (const take of this.takers.splice(0)) take(Promise.reject(problem));
    if (this.handlers.onError) this.tell(() => this.handlers.onError(problem));
  }
  tell(handler) {
    try {
      handler();
    } catch (error) {
      this.home.complain(error);
    }
  }
};
function forget(set) {
  for (const oldest of set) return void set.delete(oldest);
}

// src/session.ts
var TOPICS_MAX2 = 50;
var Session = class {
  constructor(memory, told) {
    this.memory = memory;
    this.told = told;
  }
  memory;
  told;
  cursor;
  subscriptions = /* @__PURE__ */ new Set();
  /** Asked, by the number of the question. */
  asked = /* @__PURE__ */ new Map();
  reference = 0;
  send;
  /** The cursor that the connection resumed from, until what was missed has come. */
  resumed;
  scheduled = false;
  complain(error) {
    this.told.complain(error);
  }
  add(topic, handlers) {
    const remembers = handlers.remember ?? !isTask(topic);
    const cursor = handlers.cursor ?? (remembers ? this.memory.get(topic) : void 0);
    const made = new Subscription(topic, handlers, this, cursor);
    const sibling = [...this.subscriptions].find((one) => one.topic === topic && one.last);
    this.subscriptions.add(made);
    this.ask();
    if (sibling?.last) queueMicrotask(() => made.offer(sibling.last, this.epoch));
    return made;
  }
  left(subscription) {
    this.subscriptions.delete(subscription);
    this.unsubscribe(subscription.topic);
  }
  behind(subscription) {
    this.unsubscribe(subscription.topic);
  }
  caughtUp() {
    this.ask();
  }
  unsubscribe(topic) {
    for (const other of this.subscriptions) {
      if (other.topic === topic && !["apart", "behind"].includes(other.standing)) return;
    }
    this.send?.({ op: "unsubscribe", topics: [topic] });
  }
  /** Soon, and for all that were added until then. */
  ask() {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      this.told.wanted();
    });
  }
  get apart() {
    return [...this.subscriptions].filter((one) => one.standing === "apart");
  }
  /** What a connection resumes with: the cursor, and those for whom it stands. */
  resume() {
    const resumes = this.apart.filter((one) => this.resumes(one));
    return { cursor: this.cursor, topics: [...new Set(resumes.map((one) => one.topic))] };
  }
  resumes(subscription) {
    return subscription.accepted && this.cursor !== void 0 && subscription.position === this.cursor;
  }
  /** One cursor for everybody, where a connection knows but one. */
  lowest() {
    const wanted = this.apart;
    let lowest = this.cursor;
    for (const { position } of wanted) {
      if (position !== void 0 && (lowest === void 0 || precedes(position, lowest))) lowest = position;
    }
    return { cursor: lowest, topics: [...new Set(wanted.map((one) => one.topic))] };
  }
  /** The connection is open: those it resumed with have joined, the others are asked for. */
  opened(welcome, resumed, send) {
    this.send = send;
    this.resumed = resumed.cursor;
    this.cursor = resumed.cursor ?? this.cursor ?? welcome.cursor;
    const topics = new Set(resumed.topics);
    for (const one of this.apart) {
      if (topics.has(one.topic) && (!send || this.resumes(one))) one.joined();
    }
    this.subscribe();
  }
  /** Asks for everybody who is apart, if the connection can carry it. */
  subscribe() {
    if (!this.send) return;
    const apart = this.apart;
    for (let at = 0; at < apart.length; at += TOPICS_MAX2) this.question(apart.slice(at, at + TOPICS_MAX2));
  }
  question(subscriptions) {
    const ref = ++this.reference;
    this.asked.set(ref, subscriptions);
    for (const one of subscriptions) one.standing = "asked";
    const topics = subscriptions.map((one) => one.position === void 0 ? one.topic : { topic: one.topic, cursor: one.position });
    this.send?.({ op: "subscribe", ref, topics });
  }
  lost(refused = false) {
    this.send = void 0;
    this.resumed = void 0;
    this.asked.clear();
    for (const one of this.subscriptions) {
      one.apart();
      if (refused) one.accepted = false;
    }
  }
  frame(frame) {
    switch (frame.type) {
      case "message":
        return this.message(frame);
      case "cursor":
        return this.reach(frame.cursor);
      case "ok":
        return this.answered(frame.ref);
      case "error":
        return this.refused(frame);
      case "replayed":
        return this.replayed(frame.from);
      case "reset":
        return this.reset(frame);
      case "gap":
        for (const one of this.subscriptions) one.gap(frame);
    }
  }
  get epoch() {
    return this.cursor === void 0 ? void 0 : place(this.cursor).epoch;
  }
  message(message) {
    const epoch = message.cursor === void 0 ? this.epoch : place(message.cursor).epoch;
    for (const one of [...this.subscriptions]) one.offer(message, epoch);
    this.told.message(message);
    if (message.cursor !== void 0) this.reach(message.cursor);
  }
  reach(cursor) {
    this.cursor = later(this.cursor, cursor);
    const reached = place(this.cursor);
    for (const one of this.subscriptions) one.reached(reached);
    this.memory.changed(this.subscriptions);
  }
  answered(ref) {
    const subscriptions = this.asked.get(ref);
    this.asked.delete(ref);
    for (const one of subscriptions ?? []) {
      if (one.standing === "asked") one.agreed(one.position !== void 0);
    }
  }
  refused({ ref, code, detail }) {
    const subscriptions = this.asked.get(ref);
    if (!subscriptions) {
      if (ref !== "auth") this.complain(new Problem(code, 400, detail));
      return;
    }
    this.asked.delete(ref);
    const asked = subscriptions.filter((one) => one.standing === "asked");
    if (asked.length > 1) {
      for (const one of asked) this.question([one]);
    } else if (["unavailable", "too-many"].includes(code)) {
      for (const one of asked) one.standing = "apart";
      setTimeout(() => this.ask(), 1e3 + Math.random() * 1e3);
    } else {
      for (const one of asked) one.fail(new Problem(code, 0, detail));
    }
  }
  replayed(from) {
    if (this.resumed === from) {
      this.resumed = void 0;
      return;
    }
    for (const one of this.subscriptions) {
      if (one.standing === "replaying" && one.position === from) return one.joined();
    }
  }
  again(subscription) {
    subscription.standing = "apart";
    this.unsubscribe(subscription.topic);
    this.ask();
  }
  /** It does not say whose cursor it was; what is outstanding does. */
  reset(reset) {
    const { reason, cursor } = reset;
    const replaying = [...this.subscriptions].find((one) => one.standing === "replaying");
    const same = this.cursor !== void 0 && place(this.cursor).epoch === place(cursor).epoch;
    if (replaying && this.resumed === void 0 && same && reason !== "overflow") {
      replaying.reset(reset);
      return replaying.joined();
    }
    this.resumed = void 0;
    this.cursor = cursor;
    for (const one of [...this.subscriptions]) {
      if (one.standing === "joined" || one.standing === "replaying") {
        one.joined();
        one.reset(reset);
        if (isTask(one.topic)) this.again(one);
      }
    }
    this.memory.changed(this.subscriptions);
  }
};

// src/tasks.ts
var Tasks = class {
  /** @internal */
  constructor(http) {
    this.http = http;
  }
  http;
  /** Resolves when it is durable. Tried again with one key until it is answered, so it is there once. */
  submit(task) {
    return this.http.insist("POST", "/v1/tasks", { body: { idempotency_key: key(), ...task } });
  }
  get(id) {
    return this.http.ask("GET", path(id));
  }
  list(query = {}) {
    return this.http.ask("GET", "/v1/tasks", { query });
  }
  items(id, query = {}) {
    return this.http.ask("GET", `${path(id)}/items`, { query });
  }
  cancel(id) {
    return this.wish(id, "cancel");
  }
  pause(id) {
    return this.wish(id, "pause");
  }
  resume(id) {
    return this.wish(id, "resume");
  }
  /** Runs what failed or was cancelled again. */
  retry(id) {
    return this.wish(id, "retry");
  }
  wish(id, verb) {
    return this.http.ask("POST", `${path(id)}/${verb}`);
  }
};
function path(id) {
  return `/v1/tasks/${encodeURIComponent(id)}`;
}

// src/tidings.ts
var Tidings = class {
  inbox;
  tasks;
  http;
  session;
  link;
  memory;
  closed = false;
  endings = [];
  /** With several addresses, whichever answers. */
  constructor(url, options = {}) {
    const complain = options.onError ?? ((error) => console.error("tidings:", error));
    this.http = new Http(url, options);
    this.memory = new CursorMemory(options.storage, options.storageKey ?? `tidings:${options.user ?? ""}`);
    this.session = new Session(this.memory, {
      wanted: () => this.closed || this.link.wanted(),
      message: (message) => this.own(message),
      complain
    });
    this.link = new Link(this.http, this.session, options);
    this.inbox = new Inbox(this.http, () => this.connect(), complain);
    this.tasks = new Tasks(this.http);
    this.listenToPage();
  }
  /** How the connection is. */
  get state() {
    return this.link.state;
  }
  /** Tells each change, and how it is now. Returns how to end it. */
  onState(listener) {
    listener(this.link.state);
    return this.link.listen(listener);
  }
  /** Where the connection has come to: all that was due before has been handed out. */
  get cursor() {
    return this.session.cursor;
  }
  /** Connects without following anything yet; `subscribe` does so too. */
  connect() {
    this.closed = false;
    this.link.start();
  }
  /** Follows a topic, or all that begin with what stands before a final `*`. */
  subscribe(topic, handlers = {}) {
    this.closed = false;
    return this.session.add(topic, handlers);
  }
  /** Resolves when it is durable. Tried again with one key until it is answered, so it is there once. */
  async publish(message) {
    return (await this.publishAll([message]))[0];
  }
  /** All or none, in order. */
  async publishAll(messages) {
    const isSignal = (draft) => draft.class === "signal";
    const keyed = messages.map((draft) => isSignal(draft) ? draft : { idempotency_key: key(), ...draft });
    const body = { messages: keyed };
    const ask = { body };
    const answer = messages.some(isSignal) ? await this.http.ask("POST", "/v1/messages", ask) : await this.http.insist("POST", "/v1/messages", ask);
    return answer.messages;
  }
  /** What was said: after a cursor, or since a moment. Fails with `gone` and a cursor that is good. */
  history(topic, query = {}) {
    return this.http.ask("GET", "/v1/messages", { query: { topic: Array.isArray(topic) ? topic : [topic], ...query } });
  }
  /** Who follows a topic. */
  presence(topic, query = {}) {
    return this.http.ask("GET", "/v1/presence", { query: { topic, ...query } });
  }
  /** Who is there at all. */
  online(query = {}) {
    return this.http.ask("GET", "/v1/users/online", { query });
  }
  /** Any other question of the protocol. Fails with a `Problem`. */
  request(method, path2, ask = {}) {
    return this.http.ask(method, path2, ask);
  }
  /** Ends the connection; subscriptions stay, and go on with `connect`. */
  close() {
    this.closed = true;
    this.memory.write();
    this.link.stop();
  }
  /** Ends everything. */
  dispose() {
    for (const one of [...this.session.subscriptions]) one.unsubscribe();
    this.close();
    for (const end of this.endings.splice(0)) end();
  }
  own(message) {
    if (this.link.state.topics?.includes(message.topic)) this.inbox.message(message);
  }
  /** The network comes back, somebody looks again, the page goes. */
  listenToPage() {
    if (typeof addEventListener !== "function" || typeof removeEventListener !== "function") return;
    const wake = () => this.link.wake();
    const seen = () => {
      if (typeof document === "undefined" || document.visibilityState === "visible") this.link.wake();
      else this.memory.write();
    };
    const going = () => this.memory.write();
    const on = (target, name, listener) => {
      target.addEventListener(name, listener);
      this.endings.push(() => target.removeEventListener(name, listener));
    };
    on(globalThis, "online", wake);
    on(globalThis, "pageshow", wake);
    on(globalThis, "pagehide", going);
    if (typeof document !== "undefined") on(document, "visibilitychange", seen);
  }
};
export {
  Problem,
  Tidings
};
