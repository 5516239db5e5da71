// What a client is told when it is made.

export interface CursorStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export type TokenSource = string | (() => string | Promise<string>);

export type Way = "ws" | "sse";

export interface Options {
  /** An API key or a JWT, or what fetches a fresh one; asked again when one has expired. */
  token?: TokenSource;
  /** Against a server in dev mode: who one is. */
  user?: string;
  /** Where cursors outlive a reload, such as `localStorage`. */
  storage?: CursorStorage;
  /** Under which name in the storage; one for each user. */
  storageKey?: string;
  /** Ways to receive, in the order in which they are tried. */
  ways?: Way[];
  /** For runtimes without one of their own. */
  WebSocket?: typeof WebSocket;
  fetch?: typeof fetch;
  /** What a handler throws, and complaints of the server that belong to nobody. */
  onError?: (error: unknown) => void;
}

export type Status =
  /** Not asked to connect yet, or closed. */
  | "idle"
  | "connecting"
  | "open"
  /** Comes back by itself at `retryAt`. */
  | "waiting"
  /** Will not come back by itself: the server does not accept the token. */
  | "refused";

export interface State {
  status: Status;
  way?: Way;
  replica?: string;
  session?: string;
  user?: string | null;
  topics?: string[];
  /** While waiting: when it tries again, in milliseconds since 1970. */
  retryAt?: number;
  /** The session is open, but its replica does not see the database just now. */
  degraded: boolean;
  error?: string;
}
