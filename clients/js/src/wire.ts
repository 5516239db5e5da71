// What goes over the wire; docs/protocol.md of the project says what it means.

export type Class = "event" | "state" | "signal";
export type Priority = "high" | "normal" | "low";

export interface Message<T = unknown> {
  type: "message";
  topic: string;
  /** None of a signal. */
  seq: number | null;
  /** Everything due up to here has been sent. Absent where that cannot be said. */
  cursor?: string;
  kind: string | null;
  class: Class;
  key: string | null;
  priority: Priority;
  at: string;
  /** The trace under which it was published (W3C Trace Context), if there was one. */
  traceparent?: string;
  data: T;
  /** A notice that came while nobody was there to receive it. */
  replay?: boolean;
}

export interface Draft {
  topic: string;
  data: unknown;
  kind?: string | null;
  class?: Class;
  key?: string | null;
  priority?: Priority;
  ttl_s?: number | null;
  idempotency_key?: string | null;
  /** The trace to which this belongs (W3C Trace Context); whoever receives it gets it too. */
  traceparent?: string | null;
}

export interface Published {
  topic: string;
  seq: number | null;
  cursor: string | null;
  duplicate: boolean;
}

export interface Welcome {
  type: "welcome";
  session: string;
  user: string | null;
  replica: string;
  topics: string[];
  cursor: string;
  heartbeat_s: number;
}

export interface Reset {
  /** Why the cursor could not be honoured: reload what you show, and go on. */
  reason: "expired" | "epoch" | "overflow" | string;
  cursor: string;
}

export interface Gap {
  topic: string;
  dropped: number;
}

export type ServerFrame =
  | Message
  | Welcome
  | ({ type: "reset" } & Reset)
  | ({ type: "gap" } & Gap)
  | { type: "ok"; ref?: unknown }
  | { type: "error"; ref?: unknown; code: string; detail: string }
  | { type: "replayed"; from: string; to: string; count: number }
  | { type: "cursor"; cursor: string }
  | { type: "status"; status: "ok" | "degraded" }
  | { type: "token_expired" }
  | { type: "pong"; ref?: unknown };

export type ClientFrame = { op: string; ref?: number; [field: string]: unknown };
