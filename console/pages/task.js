// One task: how far it is, every item of it, and what failed.
import { me } from "/console/lib/connection.js";
import { eachFrame, fill, h, icon, say } from "/console/lib/dom.js";
import { ENDED, Pace, newer } from "/console/lib/newest.js";
import { card, choice, empty, failed, percent, pill, pretty, repill, taskBar, waiting } from "/console/lib/parts.js";
import { duration, moment, number, short, t } from "/console/lib/words.js";
import { wishes } from "/console/lib/wishes.js";
import { Matrix } from "/console/lib/matrix.js";

const PAGE = 1_000;
/** More items than cells can be told apart. */
const CELLS_MAX = 5_000;
const ROWS = 200;

export function task(place, id) {
  const { tidings } = me;
  const body = h("div.page", null, waiting());
  fill(place, body);
  let now;
  let view;
  let over = false;
  const pace = new Pace();
  const told = (next) => {
    if (over || !newer(next, now)) return;
    const attempt = now?.attempt;
    now = { ...now, ...next };
    pace.note(next);
    if (!view) view = made(now, body, pace, told);
    view.told(next, attempt !== undefined && attempt !== next.attempt);
  };
  const load = async () => {
    try {
      told(await tidings.tasks.get(id));
    } catch (problem) {
      if (!view) fill(body, h("a.button.small", { href: "#/tasks" }, t("All tasks")), card(null, problem.status === 404 ? empty("tasks", t("There is no such task"), t("Tasks are kept for a while after their end, and then removed.")) : failed(problem, load)));
    }
  };
  const following = tidings.subscribe(`task:${id}`, { onMessage: ({ data }) => told(data), onReset: load });
  void load();
  return () => {
    over = true;
    following.unsubscribe();
    view?.end();
  };
}

function made(first, body, pace, told) {
  const { tidings } = me;
  const status = pill(first.status);
  const bar = taskBar(first.action);
  bar.classList.add("tall");
  const percents = h("strong", { "data-test": "percent" });
  const speed = h("span.note");
  const want = wishes(told);
  const counts = Object.fromEntries([["ok", t("succeeded")], ["no", t("failed")], ["off", t("cancelled")], ["at", t("in hand")], ["todo", t("waiting")]].map(([name, label]) => [name, { value: h("b", null, "0"), label, name }]));
  const legend = h("div.legend", null, Object.values(counts).map(({ name, value, label }) => h(`span.${name}`, null, h("i"), value, ` ${label}`)));
  const error = h("div.told.bad", { hidden: true });
  const matrix = new Matrix(t("Items of the task, one cell each"));
  const cells = card(t("Every item"), h("div.body", null, matrix.element));
  const facts = h("dl.facts-list");
  const itemList = h("div.items", { tabindex: "0", role: "region", "aria-label": t("Items") }, waiting());
  let which = "";
  const itemCard = h("section.card", null, h("header", null, h("h2", null, t("Items")), choice([["", t("All")], ["failed", t("failed")], ["succeeded", t("succeeded")], ["unfinished", t("not finished")]], which, (value) => ((which = value), items()), t("Which items"))), h("div.body.flush", null, itemList));
  fill(body,
    h("div.page-head", null, h("div", null, h("a.note", { href: "#/tasks" }, `← ${t("All tasks")}`), h("h1", null, first.action, " ", status), h("p.mono.note", null, first.id)), want.element),
    error,
    h("section.card", { "aria-label": t("Progress") }, h("div.body.progress", null, h("div.big", null, percents, speed), bar, legend)),
    h("div.split", null, h("div.page", null, cells, itemCard), card(t("Facts"), h("div.body", null, facts))));

  let now = first;
  let hidden = first.total > CELLS_MAX;
  if (hidden) fill(cells.querySelector(".body"), h("p.note", null, t("More than {n} items are not drawn one by one; the list below has them.", { n: number(CELLS_MAX) })));

  const factRows = () => [
    [t("Owner"), now.owner ?? "–"], [t("Runs on"), now.replica ?? "–"], [t("Attempt"), now.attempt], [t("At once"), now.concurrency],
    [t("Executor"), now.executor ? now.executor.type : "–"], [t("Created"), moment(now.created_at)], [t("Started"), moment(now.started_at)], [t("Ended"), moment(now.finished_at)],
    [t("Took"), now.started_at ? duration(((now.finished_at ? new Date(now.finished_at) : new Date()) - new Date(now.started_at)) / 1000) : "–"],
    [t("In hand"), now.in_flight?.slice(0, 12).join(", ") || "–"],
    ...(now.meta && Object.keys(now.meta).length ? [[t("Notes"), h("pre", null, pretty(now.meta))]] : []),
  ];
  let shownFacts = "";
  const draw = eachFrame(() => {
    repill(status, now.status);
    bar.show(now);
    say(percents, percent(now.progress));
    const how = pace.of(now);
    say(speed, ENDED.includes(now.status) ? t("{done} of {all}", { done: number(now.current), all: number(now.total) }) : how ? t("{done} of {all}, {rate}/s, {time} left", { done: number(now.current), all: number(now.total), rate: short(how.rate), time: duration(how.left) }) : t("{done} of {all}", { done: number(now.current), all: number(now.total) }));
    const hand = now.in_flight?.length ?? 0;
    const values = { ok: now.succeeded, no: now.failed, off: now.cancelled, at: hand, todo: Math.max(0, now.total - now.succeeded - now.failed - now.cancelled - hand) };
    for (const [name, value] of Object.entries(values)) say(counts[name].value, number(value));
    error.hidden = !now.error;
    say(error, now.error ?? "");
    want.show(now);
    const rows = factRows();
    const text = JSON.stringify(rows.map(([name, value]) => [name, value instanceof Node ? "" : value]));
    if (text !== shownFacts) fill(facts, rows.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
    shownFacts = text;
    matrix.draw();
  });

  /** Cells are asked for at the start, and again where what was told left some out. */
  let asking = false;
  const survey = async (anew = false) => {
    if (hidden || asking) return;
    asking = true;
    try {
      let after;
      for (let had = 0; had < CELLS_MAX; ) {
        const page = await tidings.tasks.items(first.id, { limit: PAGE, after });
        for (const item of page.items) matrix.book(item.name, item.status, anew);
        had += page.items.length;
        after = page.items.at(-1)?.name;
        if (!page.more) break;
      }
      matrix.draw();
    } catch {
      // The counts above say all; the cells stay as they were.
    } finally {
      asking = false;
    }
  };

  let listed = 0;
  const items = async () => {
    const asked = ++listed;
    try {
      const page = await tidings.tasks.items(first.id, { status: which || undefined, limit: ROWS });
      if (asked !== listed) return;
      fill(itemList, page.items.length ? h("table", null, h("thead", null, h("tr", null, h("th", null, t("Item")), h("th", null, t("State")), h("th", null, t("Error")))), h("tbody", null, page.items.map((item) => h("tr", null, h("td.mono", null, item.name), h("td", null, pill(item.status)), h("td.note", null, item.error ?? ""))))) : empty("tasks", t("None"), t("No item is in this state.")), page.more && h("p.note", { class: "note marker" }, t("The first {n} are shown.", { n: ROWS })));
    } catch (problem) {
      if (asked === listed) fill(itemList, failed(problem, items));
    }
  };

  let again;
  const later = (ms) => {
    again ??= setTimeout(() => {
      again = undefined;
      void items();
      if (!hidden && matrix.finished !== now.current) void survey();
    }, ms);
  };
  void survey();
  void items();
  return {
    told(next, anew) {
      now = { ...now, ...next };
      if (anew) void survey(true);
      for (const name of next.succeeded_items ?? []) matrix.tell(name, "succeeded");
      for (const { name } of next.failed_items ?? []) matrix.tell(name, "failed");
      matrix.inHand(next.in_flight ?? []);
      later(ENDED.includes(next.status) ? 150 : 3_000);
      draw();
    },
    end() {
      clearTimeout(again);
      draw.stop();
      matrix.end();
    },
  };
}
