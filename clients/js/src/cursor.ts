// A cursor is `<epoch>-<seq>`. What a page keeps is the text; here it is compared.

export interface Place {
  epoch: string;
  seq: number;
}

export function place(cursor: string): Place {
  const at = cursor.lastIndexOf("-");
  const seq = Number(cursor.slice(at + 1));
  return { epoch: cursor.slice(0, Math.max(at, 0)), seq: Number.isSafeInteger(seq) ? seq : 0 };
}

/** Whether `a` lies before `b` in the same log. */
export function precedes(a: string, b: string): boolean {
  const [one, other] = [place(a), place(b)];
  return one.epoch === other.epoch && one.seq < other.seq;
}

/** The later of two cursors; of two logs, the second. */
export function later(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return b ?? a;
  return precedes(b, a) ? a : b;
}

export function matches(pattern: string, topic: string): boolean {
  return pattern.endsWith("*") ? topic.startsWith(pattern.slice(0, -1)) : topic === pattern;
}

/** A task's topic tells its newest state, always in order. */
export function isTask(pattern: string): boolean {
  return pattern.startsWith("task:") && !pattern.endsWith("*");
}
