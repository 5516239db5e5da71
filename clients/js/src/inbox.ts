// Notices: what a user was told, and how far it has come with him.

import type { Http } from "./http.js";
import type { Message } from "./wire.js";

export interface Notice {
  id: string;
  title: string;
  content: string;
  data: unknown;
  priority?: string;
  confirm: boolean;
  expires_at: string | null;
  /** In a list. */
  state?: "pending" | "sent" | "received" | "read" | "confirmed" | "expired";
  created_at?: string;
  read_at?: string | null;
  confirmed_at?: string | null;
}

export interface InboxCounts {
  unread: number;
  unconfirmed: number;
}

export interface InboxHandlers {
  /** Once for each notice. When it returns, the server is told that it was received. */
  onNotice?: (notice: Notice, message: Message<Notice>) => void;
  onRecall?: (id: string) => void;
  onCounts?: (counts: InboxCounts) => void;
}

const SEEN_MAX = 1_000;
/** Acknowledgements of a burst travel together. */
const TELL_AFTER_MS = 100;
const IDS_MAX = 1_000;

export class Inbox {
  private readonly followers = new Set<InboxHandlers>();
  private readonly seen = new Set<string>();
  private received: string[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(private readonly http: Http, private readonly start: () => void, private readonly complain: (error: unknown) => void) {}

  /** Hears of notices, as they come and those that were missed. Returns how to end it. */
  follow(handlers: InboxHandlers): () => void {
    this.followers.add(handlers);
    this.start();
    return () => void this.followers.delete(handlers);
  }

  list(query: { state?: "unread" | "all"; limit?: number; before?: string } = {}): Promise<{ notices: Notice[]; more: boolean }> {
    return this.http.ask("GET", "/v1/inbox", { query });
  }

  counts(): Promise<InboxCounts> {
    return this.http.ask("GET", "/v1/inbox/counts");
  }

  /** Which notices, or all; the answer says what is left. */
  markReceived(which: string[] | "all"): Promise<InboxCounts> {
    return this.mark("received", which);
  }

  markRead(which: string[] | "all"): Promise<InboxCounts> {
    return this.mark("read", which);
  }

  markConfirmed(which: string[] | "all"): Promise<InboxCounts> {
    return this.mark("confirmed", which);
  }

  private mark(state: string, which: string[] | "all"): Promise<InboxCounts> {
    const body = which === "all" ? { all: true } : { ids: which };
    return this.http.insist("POST", `/v1/inbox/${state}`, { body });
  }

  /** @internal A message on one of the user's own topics. */
  message(message: Message): void {
    const data = message.data as Notice & InboxCounts;
    for (const follower of [...this.followers]) {
      try {
        if (message.kind === "inbox.counts") follower.onCounts?.({ unread: data.unread, unconfirmed: data.unconfirmed });
        else if (message.kind === "notice.recalled") follower.onRecall?.(data.id);
        else if (message.kind === "notice" && !this.seen.has(data.id)) follower.onNotice?.(data, message as Message<Notice>);
      } catch (error) {
        this.complain(error);
      }
    }
    if (message.kind === "notice" && this.followers.size) this.acknowledge(data.id);
  }

  /** Again too if it came again: then the server has not heard of it. */
  private acknowledge(id: string): void {
    this.seen.add(id);
    if (this.seen.size > SEEN_MAX) for (const oldest of this.seen) { this.seen.delete(oldest); break; }
    this.received.push(id);
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      const ids = [...new Set(this.received.splice(0, IDS_MAX))];
      // If it is not told, the notice comes again.
      this.markReceived(ids).catch((error: unknown) => this.complain(error));
    }, TELL_AFTER_MS);
  }
}
