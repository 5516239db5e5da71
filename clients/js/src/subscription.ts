// One pattern that somebody follows: where it stands, what it has had, and who is told.

import { isTask, later, matches, place } from "./cursor.js";
import type { Problem } from "./problem.js";
import type { Gap, Message, Reset } from "./wire.js";

export interface Handlers<T = unknown> {
  onMessage?: (message: Message<T>) => void;
  /** Signals were dropped, or missed notices are left in the inbox. */
  onGap?: (gap: Gap) => void;
  /** Something may have been missed that is no longer kept: reload what you show. */
  onReset?: (reset: Reset) => void;
  /** The server refuses this topic; the subscription is over. */
  onError?: (problem: Problem) => void;
  /** Where to go on from; without one it begins now, or where `storage` says. */
  cursor?: string;
  /** False: the cursor is not kept in the storage. A task's never is: it tells how it stands. */
  remember?: boolean;
}

/** What waits for an iterator, before its topic is left and read again later. */
const WAITING_MAX = 1_000;
/** What is remembered beyond the cursor. */
const SEEN_MAX = 65_536;
const REPLAYS_MAX = 1_000;

/**
 * ```text
 *            asked                  ok (and `replayed`, with a cursor of its own)
 *   apart ──────────▶ asked ─▶ replaying ─▶ joined ──▶ the session's cursor is its own
 *     ▲                                        │ its iterator takes nothing
 *     └── the connection was lost              ▼
 *     ▲                                     behind ── all was taken: apart again
 * ```
 */
export type Standing = "apart" | "asked" | "replaying" | "joined" | "behind" | "over";

/** What a subscription needs of whoever has the connection. */
export interface Home {
  readonly cursor: string | undefined;
  left(subscription: Subscription<any>): void;
  behind(subscription: Subscription<any>): void;
  caughtUp(subscription: Subscription<any>): void;
  complain(error: unknown): void;
}

export class Subscription<T = unknown> implements AsyncIterable<Message<T>> {
  /** @internal */
  standing: Standing = "apart";
  /** @internal Asked for before, without a refusal. */
  accepted = false;
  /** Resolves once the server has said yes. */
  readonly ready: Promise<void>;
  private resolve!: () => void;
  private reject!: (problem: Problem) => void;
  /** Up to here everything was had, while it is not joined. */
  private own: string | undefined;
  /** Had beyond the cursor. */
  private readonly seen = new Set<number>();
  private readonly replays = new Set<string>();
  private floor: { epoch: string; seq: number } | undefined;
  /** @internal Of a task: how it stands. */
  last: Message<T> | undefined;
  private waiting: Message<T>[] = [];
  private inHand: Message<T> | undefined;
  /** Before the first message that an iterator has not done with. */
  private undoneFrom: string | undefined;
  private takers: ((result: IteratorResult<Message<T>>) => void)[] = [];
  private iterated = false;
  private failure: Problem | undefined;

  constructor(
    readonly topic: string,
    private readonly handlers: Handlers<T>,
    private readonly home: Home,
    cursor: string | undefined,
  ) {
    this.own = cursor;
    if (cursor !== undefined) this.floor = place(cursor);
    this.ready = new Promise((resolve, reject) => ([this.resolve, this.reject] = [resolve, reject]));
    this.ready.catch(() => {});
  }

  /** Where to go on from another time: all before it was handed out. */
  get cursor(): string | undefined {
    return this.inHand || this.waiting.length ? this.undoneFrom : this.position;
  }

  /** @internal Up to here everything was received, whether or not somebody took it. */
  get position(): string | undefined {
    return this.standing === "joined" ? later(this.own, this.home.cursor) : this.own;
  }

  get remembers(): boolean {
    return this.handlers.remember ?? !isTask(this.topic);
  }

  unsubscribe(): void {
    if (this.standing === "over") return;
    this.standing = "over";
    this.resolve();
    this.home.left(this);
    for (const take of this.takers.splice(0)) take({ done: true, value: undefined });
  }

  /** One consumer: what one has taken no other is given. Leaving the loop ends the subscription. */
  [Symbol.asyncIterator](): AsyncIterator<Message<T>> {
    this.iterated = true;
    return {
      next: () => this.next(),
      return: () => {
        this.unsubscribe();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  private next(): Promise<IteratorResult<Message<T>>> {
    // Who comes for the next one has done with the last.
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
    if (this.standing === "over") return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.takers.push(resolve));
  }

  /** @internal A message of the session. Returns nothing: whoever had it is not told again. */
  offer(message: Message<T>, epoch: string | undefined): void {
    if (this.standing === "over" || this.standing === "behind") return;
    if (!matches(this.topic, message.topic) || this.had(message, epoch)) return;
    this.note(message, epoch);
    if (this.handlers.onMessage) this.tell(() => this.handlers.onMessage!(message));
    if (this.handlers.onMessage && !this.iterated) return;
    if (!this.inHand && this.waiting.length === 0) this.undoneFrom = this.position;
    const take = this.takers.shift();
    if (take) {
      this.inHand = message;
      return take({ done: false, value: message });
    }
    this.waiting.push(message);
    if (this.waiting.length >= WAITING_MAX) {
      // The log keeps the rest, and is read again from here when all of this was taken.
      this.own = message.cursor ?? this.position;
      this.standing = "behind";
      this.home.behind(this);
    }
  }

  private had({ seq, replay, topic }: Message, epoch: string | undefined): boolean {
    if (seq === null) return false;
    // One that comes again because nobody acknowledged it lies before any cursor.
    if (replay) return this.replays.has(`${topic} ${seq}`);
    if (this.floor && this.floor.epoch === epoch && seq <= this.floor.seq) return true;
    return this.seen.has(seq);
  }

  private note(message: Message<T>, epoch: string | undefined): void {
    const { seq, replay, topic } = message;
    if (seq === null) return;
    if (replay) {
      this.replays.add(`${topic} ${seq}`);
      if (this.replays.size > REPLAYS_MAX) forget(this.replays);
    } else if (isTask(this.topic) && epoch !== undefined) {
      // Its messages come in order, and each says all that those before it said.
      this.floor = { epoch, seq };
      this.last = message;
    } else {
      this.seen.add(seq);
      if (this.seen.size > SEEN_MAX) forget(this.seen);
    }
  }

  /** @internal The session's cursor went on: what lies below it need not be remembered. */
  reached(cursor: { epoch: string; seq: number }): void {
    // How a task stands is told out of its turn, and may be older than the cursor.
    if (this.standing !== "joined" || isTask(this.topic)) return;
    if (!this.floor || this.floor.epoch !== cursor.epoch || this.floor.seq < cursor.seq) this.floor = cursor;
    for (const seq of this.seen) if (seq <= cursor.seq) this.seen.delete(seq);
  }

  /** @internal */
  joined(): void {
    this.standing = "joined";
    this.accepted = true;
    this.resolve();
  }

  /** @internal The server says yes; with a cursor of its own, what it missed is still to come. */
  agreed(replaying: boolean): void {
    if (!replaying) return this.joined();
    this.standing = "replaying";
    this.accepted = true;
    this.resolve();
  }

  /** @internal */
  apart(): void {
    if (this.standing === "over" || this.standing === "behind") return;
    if (this.standing === "joined") this.own = later(this.own, this.home.cursor);
    this.standing = "apart";
  }

  /** @internal Begins at what is so now, as an answer told it. */
  begin(cursor: string): void {
    this.own ??= cursor;
  }

  /** @internal */
  reset(reset: Reset): void {
    this.own = reset.cursor;
    this.floor = place(reset.cursor);
    this.seen.clear();
    // It begins anew, with how it stands.
    if (isTask(this.topic)) this.own = this.floor = undefined;
    if (this.handlers.onReset) this.tell(() => this.handlers.onReset!(reset));
  }

  /** @internal */
  gap(gap: Gap): void {
    if (matches(this.topic, gap.topic) && this.handlers.onGap) this.tell(() => this.handlers.onGap!(gap));
  }

  /** @internal */
  fail(problem: Problem): void {
    if (this.standing === "over") return;
    this.standing = "over";
    this.failure = problem;
    this.reject(problem);
    this.home.left(this);
    // Who waits is told at once, who comes later is told by `next`.
    for (const take of this.takers.splice(0)) take(Promise.reject(problem) as never);
    if (this.handlers.onError) this.tell(() => this.handlers.onError!(problem));
  }

  private tell(handler: () => void): void {
    try {
      handler();
    } catch (error) {
      this.home.complain(error);
    }
  }
}

function forget<V>(set: Set<V>): void {
  for (const oldest of set) return void set.delete(oldest);
}
