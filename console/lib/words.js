// Words in the reader's language. English is the text in the code's own hands: `words/en.js`.
import { en } from "/console/words/en.js";
import { zh } from "/console/words/zh.js";

const all = { en, zh };
const kept = read("tidings.language");
export let language = all[kept] ? kept : navigator.language?.startsWith("zh") ? "zh" : "en";

export function speak(name) {
  language = all[name] ? name : "en";
  write("tidings.language", language);
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
}

/** @param {keyof typeof en} key @param {Record<string, any>} [values] */
export function t(key, values = {}) {
  const text = all[language][key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: 0 }).format(value);
}

/** 12.3k: for where there is little room. */
export function short(value) {
  return Math.abs(value) < 10_000 ? number(value, Math.abs(value) < 10 ? 1 : 0) : new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function clock(at) {
  return new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).format(new Date(at));
}

/** For an axis whose marks are so many seconds apart. */
export function mark(at, apart) {
  const day = { month: "short", day: "numeric" };
  const time = { hour: "2-digit", minute: "2-digit", ...(apart < 60 && { second: "2-digit" }), hourCycle: "h23" };
  return new Intl.DateTimeFormat(language, apart >= 86_400 * 27 ? { month: "short", year: "numeric" } : apart >= 86_400 ? day : apart >= 6 * 3_600 ? { ...day, ...time } : time).format(new Date(at));
}

export function moment(at) {
  return at ? new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" }).format(new Date(at)) : "–";
}

const STEPS = [[86_400, "day"], [3_600, "hour"], [60, "minute"], [1, "second"]];

export function duration(seconds) {
  const value = Math.max(0, seconds);
  const at = STEPS.findIndex(([size]) => value >= size);
  const [size, unit] = STEPS[at < 0 ? 3 : at];
  const first = format(Math.floor(value / size), unit);
  const next = STEPS[at + 1];
  if (at < 0 || !next || value / size >= 10) return first;
  const rest = Math.floor((value % size) / next[0]);
  return rest ? `${first} ${format(rest, next[1])}` : first;
}

function format(value, unit) {
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "narrow" }).format(value);
}

/** With `digits` after the point, where one wants to see it move. */
export function bytes(value, digits) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) (value /= 1000), at++;
  if (at === 0) return `${number(value)} B`;
  const few = digits ?? (value < 10 ? 1 : 0);
  return new Intl.NumberFormat(language, { style: "unit", unit: units[at], unitDisplay: "short", maximumFractionDigits: few, minimumFractionDigits: digits ?? 0 }).format(value);
}

export function ago(at) {
  const seconds = (Date.now() - new Date(at).getTime()) / 1000;
  return seconds < 5 ? t("just now") : t("{time} ago", { time: duration(seconds) });
}

export function read(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function write(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Kept for this visit alone.
  }
}
