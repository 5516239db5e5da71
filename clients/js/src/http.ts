// Questions that are answered: everything but receiving.

import type { Options } from "./options.js";
import { Problem } from "./problem.js";

export interface Ask {
  query?: Record<string, string | number | boolean | string[] | null | undefined>;
  body?: unknown;
  signal?: AbortSignal;
  /** How long one answer is waited for. */
  timeoutMs?: number;
}

const TIMEOUT_MS = 30_000;
/** How long something that cannot happen twice is tried. */
const TRY_FOR_MS = 20_000;
const PAUSE_MS = 300;

export class Http {
  private readonly addresses: string[];
  private turn = 0;
  private token: Promise<string | undefined> | undefined;
  private readonly fetch: typeof fetch;

  constructor(url: string | string[], private readonly options: Options) {
    const list = (Array.isArray(url) ? url : [url]).map((one) => one.replace(/\/+$/, ""));
    if (list.length === 0) throw new TypeError("an address is needed");
    this.addresses = list;
    this.fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  get address(): string {
    return this.addresses[this.turn % this.addresses.length]!;
  }

  get count(): number {
    return this.addresses.length;
  }

  /** The next one, since this one did not answer. */
  elsewhere(): void {
    this.turn += 1;
  }

  /** The token in hand, or a fresh one. */
  credential(fresh = false): Promise<string | undefined> {
    if (fresh || this.token === undefined) {
      const source = this.options.token;
      const asked = Promise.resolve().then(() => (typeof source === "function" ? source() : source));
      this.token = asked;
      // A failure is not remembered.
      asked.catch(() => {
        if (this.token === asked) this.token = undefined;
      });
    }
    return this.token!;
  }

  /** The address of a path, with who asks in dev mode. */
  url(path: string, query: Ask["query"] = {}, address = this.address): string {
    const parameters = new URLSearchParams();
    const named = this.options.user !== undefined ? { ...query, user: this.options.user } : query;
    for (const [name, value] of Object.entries(named)) {
      if (value === undefined || value === null) continue;
      for (const one of Array.isArray(value) ? value : [value]) parameters.append(name, String(one));
    }
    const text = parameters.toString();
    return address + path + (text ? `?${text}` : "");
  }

  /** One answer. Fails with a `Problem`. */
  async ask<T = unknown>(method: string, path: string, ask: Ask = {}): Promise<T> {
    let response = await this.once(method, path, ask, false);
    if (response.status === 401 && typeof this.options.token === "function") {
      response = await this.once(method, path, ask, true);
    }
    if (!response.ok) throw await Problem.of(response);
    if (response.status === 204) return undefined as T;
    try {
      return (await response.json()) as T;
    } catch (error) {
      throw Problem.unreachable(error);
    }
  }

  /** The same until it is answered: for what carries an idempotency key. */
  async insist<T>(method: string, path: string, ask: Ask): Promise<T> {
    const until = Date.now() + TRY_FOR_MS;
    for (let pause = PAUSE_MS; ; pause = Math.min(pause * 2, 4_000)) {
      try {
        return await this.ask<T>(method, path, ask);
      } catch (error) {
        const wait = error instanceof Problem ? (error.retryAfterMs ?? pause) : pause;
        const lasting = !(error instanceof Problem) || !error.passes || ask.signal?.aborted;
        if (lasting || Date.now() + wait > until) throw error;
        this.elsewhere();
        await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      }
    }
  }

  private async once(method: string, path: string, ask: Ask, fresh: boolean): Promise<Response> {
    const token = await this.credential(fresh);
    const headers: Record<string, string> = {};
    if (token) headers.authorization = `Bearer ${token}`;
    if (ask.body !== undefined) headers["content-type"] = "application/json";
    const limit = AbortSignal.timeout(ask.timeoutMs ?? TIMEOUT_MS);
    const init: RequestInit = { method, headers, credentials: "omit", cache: "no-store" };
    if (ask.body !== undefined) init.body = JSON.stringify(ask.body);
    init.signal = ask.signal ? AbortSignal.any([ask.signal, limit]) : limit;
    try {
      return await this.fetch(this.url(path, ask.query), init);
    } catch (error) {
      if (ask.signal?.aborted) throw ask.signal.reason;
      throw Problem.unreachable(error);
    }
  }
}

/** Good enough to be used once. */
export function key(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
