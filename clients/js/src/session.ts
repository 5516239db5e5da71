// What is followed over whatever connection there is: who is asked for, who has joined, and the
// cursor that stands for all who have.

import { isTask, later, place, precedes } from "./cursor.js";
import type { CursorMemory } from "./memory.js";
import { Problem } from "./problem.js";
import { Subscription, type Handlers, type Home } from "./subscription.js";
import type { ClientFrame, Message, Reset, ServerFrame, Welcome } from "./wire.js";

type Any = Subscription<any>;

/** Topics in one frame; of more than one, all are refused if one is. */
const TOPICS_MAX = 50;

export class Session implements Home {
  cursor: string | undefined;
  readonly subscriptions = new Set<Any>();
  /** Asked, by the number of the question. */
  private readonly asked = new Map<number, Any[]>();
  private reference = 0;
  private send: ((frame: ClientFrame) => void) | undefined;
  /** The cursor that the connection resumed from, until what was missed has come. */
  private resumed: string | undefined;
  private scheduled = false;

  constructor(
    private readonly memory: CursorMemory,
    private readonly told: {
      /** Something was added or must be asked for again. */
      wanted(): void;
      message(message: Message): void;
      complain(error: unknown): void;
    },
  ) {}

  complain(error: unknown): void {
    this.told.complain(error);
  }

  add<T>(topic: string, handlers: Handlers<T>): Subscription<T> {
    const remembers = handlers.remember ?? !isTask(topic);
    const cursor = handlers.cursor ?? (remembers ? this.memory.get(topic) : undefined);
    const made = new Subscription<T>(topic, handlers, this, cursor);
    const sibling = [...this.subscriptions].find((one) => one.topic === topic && one.last) as Subscription<T> | undefined;
    this.subscriptions.add(made);
    this.ask();
    // The server tells a session once how a task stands.
    if (sibling?.last) queueMicrotask(() => made.offer(sibling.last!, this.epoch));
    return made;
  }

  left(subscription: Any): void {
    this.subscriptions.delete(subscription);
    this.unsubscribe(subscription.topic);
  }

  behind(subscription: Any): void {
    this.unsubscribe(subscription.topic);
  }

  caughtUp(): void {
    this.ask();
  }

  private unsubscribe(topic: string): void {
    for (const other of this.subscriptions) {
      // Who is apart asks for it again, after this.
      if (other.topic === topic && !["apart", "behind"].includes(other.standing)) return;
    }
    this.send?.({ op: "unsubscribe", topics: [topic] });
  }

  /** Soon, and for all that were added until then. */
  private ask(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      this.told.wanted();
    });
  }

  get apart(): Any[] {
    return [...this.subscriptions].filter((one) => one.standing === "apart");
  }

  /** What a connection resumes with: the cursor, and those for whom it stands. */
  resume(): { cursor: string | undefined; topics: string[] } {
    const resumes = this.apart.filter((one) => this.resumes(one));
    return { cursor: this.cursor, topics: [...new Set(resumes.map((one) => one.topic))] };
  }

  private resumes(subscription: Any): boolean {
    return subscription.accepted && this.cursor !== undefined && subscription.position === this.cursor;
  }

  /** One cursor for everybody, where a connection knows but one. */
  lowest(): { cursor: string | undefined; topics: string[] } {
    const wanted = this.apart;
    let lowest = this.cursor;
    for (const { position } of wanted) {
      if (position !== undefined && (lowest === undefined || precedes(position, lowest))) lowest = position;
    }
    return { cursor: lowest, topics: [...new Set(wanted.map((one) => one.topic))] };
  }

  /** The connection is open: those it resumed with have joined, the others are asked for. */
  opened(welcome: Welcome, resumed: { cursor: string | undefined; topics: string[] }, send?: (frame: ClientFrame) => void): void {
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
  subscribe(): void {
    if (!this.send) return;
    const apart = this.apart;
    for (let at = 0; at < apart.length; at += TOPICS_MAX) this.question(apart.slice(at, at + TOPICS_MAX));
  }

  private question(subscriptions: Any[]): void {
    const ref = ++this.reference;
    this.asked.set(ref, subscriptions);
    for (const one of subscriptions) one.standing = "asked";
    const topics = subscriptions.map((one) => (one.position === undefined ? one.topic : { topic: one.topic, cursor: one.position }));
    this.send?.({ op: "subscribe", ref, topics });
  }

  lost(refused = false): void {
    this.send = undefined;
    this.resumed = undefined;
    this.asked.clear();
    for (const one of this.subscriptions) {
      one.apart();
      // One of them may not be had any more: each is asked for alone, and told.
      if (refused) one.accepted = false;
    }
  }

  frame(frame: ServerFrame): void {
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

  private get epoch(): string | undefined {
    return this.cursor === undefined ? undefined : place(this.cursor).epoch;
  }

  private message(message: Message): void {
    const epoch = message.cursor === undefined ? this.epoch : place(message.cursor).epoch;
    for (const one of [...this.subscriptions]) one.offer(message, epoch);
    this.told.message(message);
    if (message.cursor !== undefined) this.reach(message.cursor);
  }

  private reach(cursor: string): void {
    this.cursor = later(this.cursor, cursor)!;
    const reached = place(this.cursor);
    for (const one of this.subscriptions) one.reached(reached);
    this.memory.changed(this.subscriptions);
  }

  private answered(ref: unknown): void {
    const subscriptions = this.asked.get(ref as number);
    this.asked.delete(ref as number);
    for (const one of subscriptions ?? []) {
      if (one.standing === "asked") one.agreed(one.position !== undefined);
    }
  }

  private refused({ ref, code, detail }: { ref?: unknown; code: string; detail: string }): void {
    const subscriptions = this.asked.get(ref as number);
    if (!subscriptions) {
      if (ref !== "auth") this.complain(new Problem(code, 400, detail));
      return;
    }
    this.asked.delete(ref as number);
    const asked = subscriptions.filter((one) => one.standing === "asked");
    if (asked.length > 1) {
      for (const one of asked) this.question([one]);
    } else if (["unavailable", "too-many"].includes(code)) {
      for (const one of asked) one.standing = "apart";
      setTimeout(() => this.ask(), 1_000 + Math.random() * 1_000);
    } else {
      for (const one of asked) one.fail(new Problem(code, 0, detail));
    }
  }

  private replayed(from: string): void {
    if (this.resumed === from) {
      this.resumed = undefined;
      return;
    }
    for (const one of this.subscriptions) {
      if (one.standing === "replaying" && one.position === from) return one.joined();
    }
  }

  private again(subscription: Any): void {
    subscription.standing = "apart";
    this.unsubscribe(subscription.topic);
    this.ask();
  }

  /** It does not say whose cursor it was; what is outstanding does. */
  private reset(reset: Reset): void {
    const { reason, cursor } = reset;
    const replaying = [...this.subscriptions].find((one) => one.standing === "replaying");
    const same = this.cursor !== undefined && place(this.cursor).epoch === place(cursor).epoch;
    if (replaying && this.resumed === undefined && same && reason !== "overflow") {
      replaying.reset(reset);
      return replaying.joined();
    }
    this.resumed = undefined;
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
}
