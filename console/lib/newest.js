// Of several answers about a task the one with the highest seq counts; attempts come one after the other.
export function newer(task, than) {
  return !than || task.seq > than.seq || (task.seq === than.seq && task.updated_at >= than.updated_at);
}

export const ENDED = ["completed", "partial", "failed", "cancelled", "interrupted"];

/** How fast it goes, from the last few seconds of what was told. */
export class Pace {
  points = [];

  note(task) {
    const now = performance.now() / 1000;
    if (this.attempt !== task.attempt) this.points = [];
    this.attempt = task.attempt;
    this.points.push([now, task.current]);
    while (this.points.length > 2 && now - this.points[0][0] > 8) this.points.shift();
  }

  /** Items a second, and the seconds that are left. */
  of(task) {
    if (task.status !== "running" || this.points.length < 2) return null;
    const [[from, had], [to, has]] = [this.points[0], this.points.at(-1)];
    const rate = to > from ? (has - had) / (to - from) : 0;
    return rate > 0 ? { rate, left: (task.total - task.current) / rate } : null;
  }
}
