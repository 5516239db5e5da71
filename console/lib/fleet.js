// What the instances of a source say, newest first seen to win, and how fast their counters grow.

/** Over so long a rate is taken: events come in bursts. */
const RATE_S = 10;
const KEPT_S = 90;

export class Fleet {
  /** @type {Map<string, any>} */
  instances = new Map();
  /** Beyond this name there are more than are shown. */
  last;
  #heard = new Map();
  #grown = new Map();
  #samples = [];

  /** A page of all of them, asked for at `asked` by `performance.now()`. */
  fill(all, more, asked) {
    this.last = more ? key(all.at(-1)) : undefined;
    const told = new Set();
    for (const one of all) {
      told.add(key(one));
      const now = this.instances.get(key(one));
      if (!now || !(now.at > one.at)) this.instances.set(key(one), one);
    }
    // What was heard of since then may be newer than the answer.
    for (const name of this.instances.keys()) if (!told.has(name) && !(this.#heard.get(name) >= asked)) this.forget(name);
  }

  /** As an instance says that it stands now. */
  take(one) {
    const name = key(one);
    if (!name || (this.last !== undefined && name > this.last)) return;
    const before = this.instances.get(name);
    this.instances.set(name, { ...before, ...one });
    this.#heard.set(name, performance.now());
    for (const [counter, total] of Object.entries(totals(one))) {
      const had = before && totals(before)[counter];
      if (had !== undefined && total > had) this.#grown.set(counter, (this.#grown.get(counter) ?? 0) + total - had);
    }
  }

  forget(name) {
    this.instances.delete(name);
    this.#heard.delete(name);
  }

  get sorted() {
    return [...this.instances.values()].sort((a, b) => (key(a) < key(b) ? -1 : 1));
  }

  names(kind) {
    const names = new Set();
    for (const one of this.instances.values()) for (const name of Object.keys(kind === "counters" ? totals(one) : (one.gauges ?? {}))) names.add(name);
    return [...names].sort();
  }

  total(counter) {
    let sum = 0;
    for (const one of this.instances.values()) sum += totals(one)[counter] ?? 0;
    return sum;
  }

  mean(gauge) {
    const values = [...this.instances.values()].map((one) => one.gauges?.[gauge]).filter((value) => value !== undefined && value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : undefined;
  }

  /** Once a second. */
  sample(now = performance.now() / 1000) {
    this.#samples.push([now, new Map(this.#grown)]);
    while (this.#samples.length > 2 && now - this.#samples[0][0] > KEPT_S) this.#samples.shift();
  }

  /** Growth a second, as it was with each sample; empty while too little is known. */
  rates(counter) {
    const rates = [];
    let from = 0;
    for (const [at, grown] of this.#samples) {
      while (at - this.#samples[from][0] > RATE_S) from += 1;
      const [then, had] = this.#samples[from];
      if (at - then >= RATE_S / 2) rates.push(((grown.get(counter) ?? 0) - (had.get(counter) ?? 0)) / (at - then));
    }
    return rates;
  }
}

export function key(one) {
  return one.instance ?? "";
}

export function totals(one) {
  return one.totals ?? one.counters ?? {};
}
