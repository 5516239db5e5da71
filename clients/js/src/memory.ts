// Cursors that outlive the page.

import type { CursorStorage } from "./options.js";
import type { Subscription } from "./subscription.js";

const WRITE_AFTER_MS = 200;
const TOPICS_MAX = 200;

export class CursorMemory {
  private readonly cursors = new Map<string, string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private latest: Iterable<Subscription<any>> = [];

  constructor(private readonly storage: CursorStorage | undefined, private readonly key: string) {
    if (!storage) return;
    try {
      const kept: unknown = JSON.parse(storage.getItem(key) ?? "{}");
      for (const [topic, cursor] of Object.entries(kept as object)) {
        if (typeof cursor === "string") this.cursors.set(topic, cursor);
      }
    } catch {
      // Somebody else's, or none.
    }
  }

  get(topic: string): string | undefined {
    return this.cursors.get(topic);
  }

  changed(subscriptions: Iterable<Subscription<any>>): void {
    if (!this.storage) return;
    this.latest = subscriptions;
    this.timer ??= setTimeout(() => this.write(), WRITE_AFTER_MS);
  }

  /** Now: the page may be going. */
  write(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.storage) return;
    for (const one of this.latest) {
      const { topic, cursor } = one;
      if (!one.remembers || cursor === undefined) continue;
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
      // Full or forbidden: a reload begins now.
    }
  }
}
