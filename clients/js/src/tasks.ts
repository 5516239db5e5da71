// Batch operations with live progress. To watch one, subscribe to `task:<id>`.

import { key, type Http } from "./http.js";

export type TaskStatus = "pending" | "running" | "paused" | "completed" | "partial" | "failed" | "cancelled" | "interrupted";

export interface Task {
  id: string;
  action: string;
  owner: string | null;
  status: TaskStatus;
  /** Items that were run to an end. */
  current: number;
  total: number;
  succeeded: number;
  failed: number;
  cancelled: number;
  /** 0 to 100. */
  progress: number;
  in_flight: string[];
  message: string | null;
  error: string | null;
  attempt: number;
  replica: string | null;
  created_at: string;
  started_at: string | null;
  updated_at: string;
  finished_at: string | null;
  concurrency: number;
  /** Of several answers the one with the highest counts. */
  seq: number;
  /** In messages: finished since the message before. */
  succeeded_items?: string[];
  failed_items?: { name: string; error: string }[];
  truncated?: boolean;
}

export interface Submission {
  action: string;
  items: (string | { name: string; data?: unknown })[];
  executor: { type: string; [field: string]: unknown };
  owner?: string;
  concurrency?: number;
  retries?: number;
  item_timeout_s?: number;
  at_most_once?: boolean;
  meta?: Record<string, unknown>;
  idempotency_key?: string;
}

export interface Item {
  name: string;
  data: unknown;
  status: "pending" | "running" | "succeeded" | "failed" | "cancelled";
  error: string | null;
  attempt: number | null;
  finished_at: string | null;
}

export class Tasks {
  /** @internal */
  constructor(private readonly http: Http) {}

  /** Resolves when it is durable. Tried again with one key until it is answered, so it is there once. */
  submit(task: Submission): Promise<Task> {
    return this.http.insist("POST", "/v1/tasks", { body: { idempotency_key: key(), ...task } });
  }

  get(id: string): Promise<Task> {
    return this.http.ask("GET", path(id));
  }

  list(query: { status?: string; owner?: string; action?: string; limit?: number; after?: string } = {}): Promise<{ tasks: Task[]; more: boolean }> {
    return this.http.ask("GET", "/v1/tasks", { query });
  }

  items(id: string, query: { status?: string; limit?: number; after?: string } = {}): Promise<{ items: Item[]; more: boolean }> {
    return this.http.ask("GET", `${path(id)}/items`, { query });
  }

  cancel(id: string): Promise<Task> {
    return this.wish(id, "cancel");
  }

  pause(id: string): Promise<Task> {
    return this.wish(id, "pause");
  }

  resume(id: string): Promise<Task> {
    return this.wish(id, "resume");
  }

  /** Runs what failed or was cancelled again. */
  retry(id: string): Promise<Task> {
    return this.wish(id, "retry");
  }

  private wish(id: string, verb: string): Promise<Task> {
    return this.http.ask("POST", `${path(id)}/${verb}`);
  }
}

function path(id: string): string {
  return `/v1/tasks/${encodeURIComponent(id)}`;
}
