// What went wrong, as the server says it (RFC 9457), or that it could not be reached.

export interface FieldError {
  pointer: string;
  detail: string;
}

export class Problem extends Error {
  override name = "Problem";

  constructor(
    /** The word of the problem's type, such as `forbidden`; `unreachable` where nobody answered. */
    readonly code: string,
    /** 0 where nobody answered. */
    readonly status: number,
    detail: string,
    readonly errors: FieldError[] = [],
    readonly retryAfterMs?: number,
    /** With `gone`: a cursor to go on from. */
    readonly cursor?: string,
  ) {
    super(errors.length ? errors.map((e) => `${e.pointer}: ${e.detail}`).join("; ") : detail);
  }

  /** Whether the same may succeed later. */
  get passes(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503 || this.status === 408;
  }

  static unreachable(error: unknown): Problem {
    const cause = error instanceof Error ? error.message : String(error);
    return new Problem("unreachable", 0, `the server cannot be reached (${cause})`);
  }

  static async of(response: Response): Promise<Problem> {
    let told: Record<string, unknown> = {};
    try {
      const value: unknown = JSON.parse(await response.text());
      if (value && typeof value === "object") told = value as Record<string, unknown>;
    } catch {
      // Something in between answered.
    }
    const type = typeof told.type === "string" ? told.type : "";
    const after = Number(response.headers.get("retry-after"));
    return new Problem(
      type.slice(type.lastIndexOf("/") + 1) || `http-${response.status}`,
      response.status,
      String(told.detail ?? told.title ?? `the server answered ${response.status}`),
      Array.isArray(told.errors) ? (told.errors as FieldError[]) : [],
      after > 0 ? after * 1000 : undefined,
      typeof told.cursor === "string" ? told.cursor : undefined,
    );
  }
}
