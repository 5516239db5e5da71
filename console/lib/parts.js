// Parts that several pages show.
import { h, fill, icon, say } from "/console/lib/dom.js";
import { t, number } from "/console/lib/words.js";

export function card(title, ...children) {
  return h("section.card", null, title && h("header", null, h("h2", null, title)), ...children);
}

export function waiting() {
  return h("div.wait", { role: "status" }, h("span.sr", null, t("Loading")), h("i"), h("i"), h("i"));
}

export function empty(name, title, text, ...more) {
  return h("div.empty", null, icon(name, 34), h("strong", null, title), text && h("p", null, text), ...more);
}

/** Something failed: what, and how to try again. */
export function failed(problem, again) {
  return h("div.empty", { role: "alert" }, icon("away", 34), h("strong", null, t("That did not work")), h("p", null, problem.message), again && h("button.button.small", { onclick: again }, t("Try again")));
}

/** The server does not have it: an older one, or one built without. */
export function absent(what) {
  return empty("away", t("Not on this server"), t("This server does not offer {what}. A newer version may.", { what }));
}

export function toast(text, kind = "") {
  const box = document.getElementById("toasts");
  const one = h(`div.toast${kind ? `.${kind}` : ""}`, null, text);
  box.append(one);
  while (box.children.length > 4) box.firstChild.remove();
  setTimeout(() => one.remove(), 6_000);
}

/** A button that is busy until the server has answered; what it says comes from the answer alone. */
export function action(label, run, props = {}) {
  const { small, primary, danger, bare, ...rest } = props;
  const classes = ["button", "button", small && "small", primary && "primary", danger && "danger", bare && "bare"].filter(Boolean).join(".");
  const button = h(classes, { type: "button", ...rest }, label);
  button.addEventListener("click", () => busy(button, run));
  return button;
}

export async function busy(button, run) {
  if (button.disabled) return;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await run();
  } catch (problem) {
    toast(problem.message, "bad");
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

let fields = 0;

/** A labelled control. */
export function field(label, control, hint) {
  const id = `field-${++fields}`;
  control.id = id;
  const note = hint && h("span.hint", { id: `${id}-hint` }, hint);
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div.field", null, h("label", { for: id }, label), control, note);
}

export function dialog(title, ...body) {
  const close = () => box.close();
  const box = h("dialog", { "aria-label": title }, h("header", null, h("h2", null, title), h("button.round", { type: "button", onclick: close, "aria-label": t("Close") }, icon("close"))), h("div.body", null, ...body));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

const STATUS = {
  pending: "calm", running: "tide moving", paused: "violet", completed: "good", partial: "warn", failed: "bad", cancelled: "calm", interrupted: "bad",
  succeeded: "good", sent: "calm", received: "tide", read: "violet", confirmed: "good", expired: "warn",
  live: "good", catching_up: "warn moving", polling: "warn", down: "bad",
  idle: "calm", connected: "good", failing: "warn", stopped: "violet", disabled: "calm", pushed: "tide", up: "good",
};

export function pill(status, text = t(`status.${status}`)) {
  return h("span", { class: `pill ${STATUS[status] ?? "calm"}` }, text);
}

export function repill(element, status, text = t(`status.${status}`)) {
  const wanted = `pill ${STATUS[status] ?? "calm"}`;
  if (element.className !== wanted) element.className = wanted;
  say(element, text);
}

/** A bar of a task, which is told how it stands. */
export function taskBar(label) {
  const [ok, no, off] = [h("i.ok"), h("i.no"), h("i.off")];
  const bar = h("div.bar", { role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 0 }, ok, no, off);
  bar.show = (task) => {
    const part = (count) => `${task.total ? (100 * count) / task.total : 0}%`;
    ok.style.width = part(task.succeeded);
    no.style.width = part(task.failed);
    off.style.width = part(task.cancelled);
    bar.classList.toggle("moving", task.status === "running");
    bar.setAttribute("aria-valuenow", String(task.progress));
  };
  return bar;
}

/** A small line of the last values. */
export function spark() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 38");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const paths = ["area", "line"].map((name) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    svg.append(path);
    return path;
  });
  return {
    element: svg,
    show(values) {
      if (values.length < 2) return;
      const top = Math.max(...values, 1e-9);
      const points = values.map((value, at) => `${((100 * at) / (values.length - 1)).toFixed(2)},${(36 - (32 * value) / top).toFixed(2)}`);
      paths[0].setAttribute("d", `M0,38L${points.join("L")}L100,38Z`);
      paths[1].setAttribute("d", `M${points.join("L")}`);
    },
  };
}

export function tile(name) {
  const value = h("div.value", null, "–");
  const under = h("div.under", null, "\u00a0");
  const line = spark();
  const element = h("div.card.tile", null, h("div.name", null, name), value, under, line.element);
  return {
    element,
    show(text, unit, below, values) {
      fill(value, text, unit && h("small", null, unit));
      say(under, below ?? "\u00a0");
      if (values) line.show(values);
    },
  };
}

/** Buttons of which one is chosen. */
export function choice(options, chosen, onchoose, label) {
  const buttons = options.map(([value, text]) => h("button.chip", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text));
  const choose = (value) => {
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(options[at][0] === value)));
    onchoose(value);
  };
  return h("div.chips", { role: "group", "aria-label": label }, buttons);
}

export function pretty(value) {
  return JSON.stringify(value, null, 2);
}

export function percent(value) {
  return `${number(value, value > 99 && value < 100 ? 2 : value < 100 ? 1 : 0)}%`;
}
