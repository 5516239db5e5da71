// A cell for each item of a task, in the order in which they were submitted.
const COLOURS = { pending: "--track", running: "--tide", succeeded: "--good-bar", failed: "--bad-bar", cancelled: "--line-strong" };

const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export class Matrix {
  constructor(label) {
    this.element = document.createElement("canvas");
    this.element.className = "matrix";
    this.element.setAttribute("role", "img");
    this.element.setAttribute("aria-label", label);
    this.states = new Map();
    this.hand = new Set();
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.element);
    this.themes = new MutationObserver(() => this.draw());
    this.themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  }

  /** What the books say, in order. Older than what was told meanwhile, unless it is a new attempt. */
  book(name, state, anew) {
    const had = this.states.get(name);
    if (anew || had === undefined || !ENDED.has(had)) this.states.set(name, state);
  }

  /** What was told; of items that are not known yet it is left to the books. */
  tell(name, state) {
    if (this.states.has(name)) this.states.set(name, state);
  }

  inHand(names) {
    this.hand = new Set(names);
  }

  get finished() {
    let count = 0;
    for (const state of this.states.values()) count += state === "succeeded" || state === "failed";
    return count;
  }

  draw() {
    const { element, states } = this;
    const width = element.clientWidth;
    if (!width || !states.size) return;
    const gap = states.size > 1_500 ? 1 : 2;
    const most = states.size > 2_000 ? 8 : states.size > 500 ? 11 : 15;
    const columns = Math.max(1, Math.floor((width + gap) / (most + gap)));
    const size = (width + gap) / columns - gap;
    const rows = Math.ceil(states.size / columns);
    const height = Math.ceil(rows * (size + gap) - gap);
    const scale = devicePixelRatio || 1;
    if (element.width !== Math.round(width * scale) || element.height !== Math.round(height * scale)) {
      element.width = Math.round(width * scale);
      element.height = Math.round(height * scale);
    }
    const ink = element.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colours = Object.fromEntries(Object.entries(COLOURS).map(([state, name]) => [state, style.getPropertyValue(name).trim()]));
    ink.setTransform(scale, 0, 0, scale, 0, 0);
    ink.clearRect(0, 0, width, height);
    let at = 0;
    for (const [name, state] of states) {
      const open = state === "pending" || state === "running";
      ink.fillStyle = colours[open && this.hand.has(name) ? "running" : open ? "pending" : state] ?? colours.pending;
      ink.beginPath();
      ink.roundRect((at % columns) * (size + gap), Math.floor(at / columns) * (size + gap), size, size, Math.min(3, size / 4));
      ink.fill();
      at += 1;
    }
  }

  end() {
    this.sizes.disconnect();
    this.themes.disconnect();
  }
}
