// Every task, live: one subscription, and of each task at most one drawing a frame.
import { me } from "/console/lib/connection.js";
import { eachFrame, fill, h, icon, say } from "/console/lib/dom.js";
import { ENDED, Pace, newer } from "/console/lib/newest.js";
import { busy, choice, dialog, empty, failed, field, percent, pill, repill, taskBar, waiting } from "/console/lib/parts.js";
import { ago, duration, number, short, t } from "/console/lib/words.js";
import { wishes } from "/console/lib/wishes.js";

const PAGE = 100;
const SHOWN_MAX = 500;

export function tasks(place) {
  const { tidings } = me;
  let filter = "all";
  let words = "";
  const known = new Map();
  const rows = new Map();
  const list = h("div.tasks", null, waiting());
  const more = h("div.row.end", null);
  const search = h("input", { type: "search", placeholder: t("Action, owner or id"), "aria-label": t("Search tasks"), oninput: () => ((words = search.value.trim().toLowerCase()), order()) });
  const counts = h("p", null, "\u00a0");
  fill(place, h("div.page", null,
    h("div.page-head", null, h("div", null, h("h1", null, t("page.tasks")), counts), h("button.button.primary", { type: "button", onclick: submit, "data-test": "new-task" }, icon("plus", 16), t("New task"))),
    h("section.card", { "aria-label": t("page.tasks") }, h("header", null, choice([["all", t("All")], ["going", t("Under way")], ["ended", t("Ended")], ["trouble", t("With errors")]], filter, (value) => ((filter = value), order()), t("Which")), h("div.grow"), h("div", { class: "search" }, search)), h("div.body.flush", null, list), more)));

  const fits = (task) => {
    if (words && ![task.action, task.owner ?? "", task.id].some((text) => text.toLowerCase().includes(words))) return false;
    if (filter === "going") return !ENDED.includes(task.status);
    if (filter === "ended") return ENDED.includes(task.status);
    if (filter === "trouble") return task.failed > 0;
    return true;
  };

  /** Which rows there are and in which order; what stands in them is drawn apart. */
  const order = () => {
    const wanted = [...known.values()].filter(fits).sort((a, b) => (a.created_at < b.created_at ? 1 : a.created_at > b.created_at ? -1 : a.id < b.id ? 1 : -1)).slice(0, SHOWN_MAX);
    const going = [...known.values()].filter(({ status }) => !ENDED.includes(status)).length;
    say(counts, t("{going} under way, {all} shown", { going: number(going), all: number(wanted.length) }));
    if (!wanted.length) {
      rows.clear();
      fill(list, known.size ? empty("tasks", t("Nothing fits"), t("No task fits this filter.")) : empty("tasks", t("No tasks yet"), t("A task does one thing to each of many items, and tells how far it is. Try one that only pretends."), h("button.button", { type: "button", onclick: submit }, t("New task"))));
      return;
    }
    const elements = wanted.map((task) => {
      const row = rows.get(task.id) ?? taskRow(task);
      rows.set(task.id, row);
      row.show(task);
      return row.element;
    });
    for (const id of rows.keys()) if (!wanted.some((task) => task.id === id)) rows.delete(id);
    fill(list, elements);
  };
  const reorder = eachFrame(order);
  const changed = new Set();
  const draw = eachFrame(() => {
    for (const id of changed) rows.get(id)?.show(known.get(id));
    changed.clear();
  });

  const told = (task) => {
    const before = known.get(task.id);
    if (!newer(task, before)) return;
    // What only an answer holds stays.
    known.set(task.id, { ...before, ...task });
    pace(task.id).note(task);
    if (!before || before.status !== task.status) reorder();
    changed.add(task.id);
    draw();
  };
  const paces = new Map();
  const pace = (id) => paces.get(id) ?? paces.set(id, new Pace()).get(id);

  const taskRow = (task) => {
    const status = pill(task.status);
    const bar = taskBar(task.action);
    const percents = h("span.percent");
    const done = h("b");
    const [failures, speed, where, attempt, when] = [h("span.no", { hidden: true }), h("span"), h("span"), h("span"), h("span")];
    const want = wishes(told);
    const element = h("article.task", { "data-task": task.id },
      h("div.head", null, h("a", { href: `#/tasks/${task.id}` }, task.action), status),
      h("div.row", null, percents, want.element), bar,
      h("div.facts", null, h("span", null, done), failures, speed, where, attempt, task.owner && h("span", null, t("of {owner}", { owner: task.owner })), when));
    return {
      element,
      show(now) {
        repill(status, now.status);
        bar.show(now);
        say(percents, percent(now.progress));
        say(done, t("{done} of {all}", { done: number(now.current), all: number(now.total) }));
        failures.hidden = now.failed === 0;
        say(failures, t("{n} failed", { n: number(now.failed) }));
        const how = pace(now.id).of(now);
        say(speed, how ? t("{rate}/s, {time} left", { rate: short(how.rate), time: duration(how.left) }) : "");
        say(where, now.replica ? t("on {replica}", { replica: now.replica }) : "");
        say(attempt, now.attempt > 1 ? t("attempt {n}", { n: now.attempt }) : "");
        say(when, now.finished_at ? ago(now.finished_at) : "");
        want.show(now);
      },
    };
  };

  const load = async (after) => {
    try {
      const page = await tidings.tasks.list({ limit: PAGE, after });
      page.tasks.forEach(told);
      order();
      fill(more, page.more && known.size < SHOWN_MAX && h("button.button.small", { type: "button", onclick: () => load(page.tasks.at(-1).id) }, t("Older ones")));
    } catch (problem) {
      if (!known.size) fill(list, failed(problem, () => load(after)));
    }
  };

  // Follows first, then asks: what happens in between is told.
  const topic = me.admin ? "task:*" : `user:${me.user}`;
  const following = tidings.subscribe(topic, {
    onMessage: ({ kind, data }) => (kind === "task.progress" || kind === "task.finished") && told(data),
    onReset: () => load(),
    remember: false,
  });
  void following.ready.then(() => load(), (problem) => fill(list, failed(problem)));

  return () => {
    following.unsubscribe();
    reorder.stop();
    draw.stop();
  };
}

function submit() {
  const { tidings } = me;
  const action = h("input", { value: "cordon", required: true, maxlength: 200 });
  const count = h("input", { type: "number", value: 200, min: 1, max: 100000, required: true });
  const names = h("textarea.mono", { placeholder: "node-1\nnode-2", rows: 3, spellcheck: "false" });
  const concurrency = h("input", { type: "number", value: 10, min: 1, max: 200, required: true });
  const delay = h("input", { type: "number", value: 250, min: 0, max: 600000, required: true });
  const rate = h("input", { type: "number", value: 2, min: 0, max: 100, step: "any", required: true });
  const copies = h("input", { type: "number", value: 1, min: 1, max: 50, required: true });
  const wrong = h("div.told.bad", { role: "alert", hidden: true });
  const go = h("button.button.primary", { type: "submit" }, t("Start"));
  const form = h("form.fields", {
    onsubmit: (event) => {
      event.preventDefault();
      void busy(go, async () => {
        const listed = names.value.split(/[\n,]+/).map((name) => name.trim()).filter(Boolean);
        const items = listed.length ? listed : Array.from({ length: Number(count.value) }, (_, n) => `node-${n + 1}`);
        const one = () => tidings.tasks.submit({ action: action.value.trim(), items, concurrency: Number(concurrency.value), executor: { type: "simulate", delay_ms: [Math.round(Number(delay.value) / 2), Math.round(Number(delay.value) * 1.5)], fail_rate: Number(rate.value) / 100, seed: Math.floor(Math.random() * 1e6) }, ...(me.user && { owner: me.user }) });
        try {
          const made = await Promise.all(Array.from({ length: Number(copies.value) }, one));
          box.close();
          if (made.length === 1) location.hash = `#/tasks/${made[0].id}`;
        } catch (problem) {
          wrong.hidden = false;
          say(wrong, problem.message);
        }
      });
    },
  },
  h("p.note", null, t("It runs with the executor that pretends: each item takes a while, and some fail. Real ones are submitted by your application.")),
  field(t("Action"), action),
  h("div.two", null, field(t("Items"), count), field(t("At once"), concurrency), field(t("Milliseconds each"), delay), field(t("Percent that fail"), rate), field(t("So many tasks"), copies)),
  h("details", null, h("summary", null, t("Name the items")), field(t("One a line; counts instead of the number above"), names)),
  wrong, h("div.row.end", null, go));
  const box = dialog(t("New task"), form);
}
