import { Http, key, type Ask } from "./http.js";
import { Inbox } from "./inbox.js";
import { Link } from "./link.js";
import { CursorMemory } from "./memory.js";
import type { Options, State } from "./options.js";
import { Session } from "./session.js";
import { Subscription, type Handlers } from "./subscription.js";
import { Tasks } from "./tasks.js";
import type { Draft, Message, Published } from "./wire.js";

export interface Online {
  user: string;
  sessions: number;
  since: string;
  replicas: string[];
}

export interface Page<T = unknown> {
  messages: Message<T>[];
  cursor: string;
  more: boolean;
}

/** A client of one installation, over one connection that it keeps. */
export class Tidings {
  readonly inbox: Inbox;
  readonly tasks: Tasks;
  private readonly http: Http;
  private readonly session: Session;
  private readonly link: Link;
  private readonly memory: CursorMemory;
  private closed = false;
  private readonly endings: (() => void)[] = [];

  /** With several addresses, whichever answers. */
  constructor(url: string | string[], options: Options = {}) {
    const complain = options.onError ?? ((error: unknown) => console.error("tidings:", error));
    this.http = new Http(url, options);
    this.memory = new CursorMemory(options.storage, options.storageKey ?? `tidings:${options.user ?? ""}`);
    this.session = new Session(this.memory, {
      wanted: () => this.closed || this.link.wanted(),
      message: (message) => this.own(message),
      complain,
    });
    this.link = new Link(this.http, this.session, options);
    this.inbox = new Inbox(this.http, () => this.connect(), complain);
    this.tasks = new Tasks(this.http);
    this.listenToPage();
  }

  /** How the connection is. */
  get state(): State {
    return this.link.state;
  }

  /** Tells each change, and how it is now. Returns how to end it. */
  onState(listener: (state: State) => void): () => void {
    listener(this.link.state);
    return this.link.listen(listener);
  }

  /** Where the connection has come to: all that was due before has been handed out. */
  get cursor(): string | undefined {
    return this.session.cursor;
  }

  /** Connects without following anything yet; `subscribe` does so too. */
  connect(): void {
    this.closed = false;
    this.link.start();
  }

  /** Follows a topic, or all that begin with what stands before a final `*`. */
  subscribe<T = unknown>(topic: string, handlers: Handlers<T> = {}): Subscription<T> {
    this.closed = false;
    return this.session.add(topic, handlers);
  }

  /** Resolves when it is durable. Tried again with one key until it is answered, so it is there once. */
  async publish(message: Draft): Promise<Published> {
    return (await this.publishAll([message]))[0]!;
  }

  /** All or none, in order. */
  async publishAll(messages: Draft[]): Promise<Published[]> {
    const isSignal = (draft: Draft) => draft.class === "signal";
    const keyed = messages.map((draft) => (isSignal(draft) ? draft : { idempotency_key: key(), ...draft }));
    const body = { messages: keyed };
    // A signal that is repeated is there twice.
    const ask = { body };
    const answer = messages.some(isSignal)
      ? await this.http.ask<{ messages: Published[] }>("POST", "/v1/messages", ask)
      : await this.http.insist<{ messages: Published[] }>("POST", "/v1/messages", ask);
    return answer.messages;
  }

  /** What was said: after a cursor, or since a moment. Fails with `gone` and a cursor that is good. */
  history<T = unknown>(topic: string | string[], query: { after?: string; since?: string; limit?: number } = {}): Promise<Page<T>> {
    return this.http.ask("GET", "/v1/messages", { query: { topic: Array.isArray(topic) ? topic : [topic], ...query } });
  }

  /** Who follows a topic. */
  presence(topic: string, query: { limit?: number; after?: string } = {}): Promise<{ users: Online[]; more: boolean }> {
    return this.http.ask("GET", "/v1/presence", { query: { topic, ...query } });
  }

  /** Who is there at all. */
  online(query: { limit?: number; after?: string } = {}): Promise<{ users: Online[]; more: boolean }> {
    return this.http.ask("GET", "/v1/users/online", { query });
  }

  /** Any other question of the protocol. Fails with a `Problem`. */
  request<T = unknown>(method: string, path: string, ask: Ask = {}): Promise<T> {
    return this.http.ask<T>(method, path, ask);
  }

  /** Ends the connection; subscriptions stay, and go on with `connect`. */
  close(): void {
    this.closed = true;
    this.memory.write();
    this.link.stop();
  }

  /** Ends everything. */
  dispose(): void {
    for (const one of [...this.session.subscriptions]) one.unsubscribe();
    this.close();
    for (const end of this.endings.splice(0)) end();
  }

  private own(message: Message): void {
    if (this.link.state.topics?.includes(message.topic)) this.inbox.message(message);
  }

  /** The network comes back, somebody looks again, the page goes. */
  private listenToPage(): void {
    if (typeof addEventListener !== "function" || typeof removeEventListener !== "function") return;
    const wake = () => this.link.wake();
    const seen = () => {
      if (typeof document === "undefined" || document.visibilityState === "visible") this.link.wake();
      else this.memory.write();
    };
    const going = () => this.memory.write();
    const on = (target: EventTarget, name: string, listener: () => void) => {
      target.addEventListener(name, listener);
      this.endings.push(() => target.removeEventListener(name, listener));
    };
    on(globalThis as unknown as EventTarget, "online", wake);
    on(globalThis as unknown as EventTarget, "pageshow", wake);
    on(globalThis as unknown as EventTarget, "pagehide", going);
    if (typeof document !== "undefined") on(document, "visibilitychange", seen);
  }
}
