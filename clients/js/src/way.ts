// Two ways to receive, alike to whoever uses them.

import type { ClientFrame, ServerFrame } from "./wire.js";

/** How a connection ended. */
export interface End {
  /** Whether it was ever open, so that what lies between lets this way through. */
  opened: boolean;
  /** The close code, or the HTTP status. */
  code: number;
  reason: string;
  retryAfterMs?: number;
}

/** What a connection tells; nothing more after `ended`. */
export interface Hears {
  /** It is open, and frames may be sent. */
  opened(): void;
  /** Something came: the other side is there. */
  heard(): void;
  frame(frame: ServerFrame): void;
  ended(end: End): void;
}

export interface Connection {
  /** False where this way does not carry frames to the server. */
  readonly sends: boolean;
  send(frame: ClientFrame): void;
  close(): void;
}

/** Reads a frame; what is none is passed over, since a newer server may say more. */
export function read(text: string, hears: Hears): void {
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    return;
  }
  if (frame && typeof frame === "object" && "type" in frame) hears.frame(frame as ServerFrame);
}
