// One source: how it stands, its instances live, how it went, and what they log.
import { me } from "/console/lib/connection.js";
import { chart } from "/console/lib/chart.js";
import { eachFrame, every, fill, h, say } from "/console/lib/dom.js";
import { Fleet, key, totals } from "/console/lib/fleet.js";
import { action, card, choice, dialog, empty, failed, pill, repill, tile, toast, waiting } from "/console/lib/parts.js";
import { ago, bytes, clock, moment, number, short, t } from "/console/lib/words.js";

const SPANS = { quarter: [900, "1m"], hour: [3_600, "1m"], day: [86_400, "1h"], week: [604_800, "1h"], month: [2_592_000, "1d"], year: [34_560_000, "1d"] };
const STEPS = { "1m": () => t("a minute"), "1h": () => t("an hour"), "1d": () => t("a day") };
const IN_BYTES = /(^|_)(rx|tx|bytes)$/;
const INSTANCES_MAX = 300;
const COLUMNS_MAX = 8;
const TILES_MAX = 3;
const LINES_MAX = 100;

export function sourceView(source, place, gone) {
  const { tidings } = me;
  const path = `/v1/sources/${encodeURIComponent(source.id)}`;
  const fleet = new Fleet();
  let over = false;
  let now = source;

  const standing = () => (now.enabled === false ? "disabled" : now.url ? (now.status ?? "idle") : "pushed");
  const status = pill(standing());
  const live = pill("live");
  const where = h("p.note", null, "\u00a0");
  const detail = h("div.told.warn", { hidden: true });
  const test = source.url && action(t("Test"), async () => { const answer = await tidings.request("POST", `${path}/test`); toast(answer.ok ? t("It answers: {n} events came.", { n: number(answer.events) }) : answer.detail, answer.ok ? "" : "bad"); }, { small: true });
  const onOff = action(t("Switch off"), async () => show(await tidings.request("PATCH", path, { body: { enabled: now.enabled === false } })), { small: true });
  const remove = action(t("Remove"), async () => removeDialog(source, gone), { small: true, danger: true });
  const show = (told) => {
    now = { ...now, ...told };
    repill(status, standing());
    say(where, [now.url ? `${now.format} · ${now.url}` : t("pushed to this server"), now.replica && now.enabled !== false && t("taken in by {replica}", { replica: now.replica })].filter(Boolean).join(" · "));
    detail.hidden = !now.detail || now.enabled === false;
    say(detail, now.detail ?? "");
    say(onOff, now.enabled === false ? t("Switch on") : t("Switch off"));
  };

  const tiles = h("div.tiles");
  const table = instanceTable(fleet, () => (void trend.load(), void log.load()));
  const trend = trendCard(source, table);
  const log = logCard(source, table);
  fill(place,
    h("section.card", { "aria-label": source.name }, h("header", null, h("h2", null, source.name), live, status, test, onOff, remove), h("div.body", null, where, detail)),
    tiles, trend.element, table.element, log.element);
  show(source);

  const strip = tileStrip(fleet, tiles);
  const draw = eachFrame(() => {
    table.draw();
    trend.metrics(fleet.names("counters"), fleet.names("gauges"));
  });
  const load = async () => {
    const asked = performance.now();
    try {
      const { instances, more } = await tidings.request("GET", `${path}/instances`, { query: { limit: INSTANCES_MAX } });
      if (over) return;
      fleet.fill(instances, more, asked);
      table.loaded();
      draw();
    } catch (problem) {
      if (!over && problem.status !== 404) table.failed(problem, load);
    }
  };
  const look = async () => {
    try {
      const told = await tidings.request("GET", path);
      if (!over) show(told);
    } catch (problem) {
      if (!over && problem.status === 404) await gone();
    }
  };

  const following = tidings.subscribe(`source:${source.id}`, {
    remember: false,
    onMessage: ({ kind, data, at }) => {
      if (kind === "instance.state" || kind === "instance.created") {
        fleet.take({ ...data, at: data.at ?? at });
        draw();
      } else if (kind === "instance.deleted") {
        fleet.forget(key(data));
        draw();
      } else if (kind === "source.status") {
        show({ status: data.status, detail: data.detail });
      } else if (kind === "log") {
        log.line(data);
      }
    },
    onGap: load,
    onReset: load,
  });
  // Signals are not kept: whoever was away asks how things stand.
  let opened = false;
  const quiet = tidings.onState(({ status }) => {
    const open = status === "open";
    repill(live, open ? "live" : "polling", open ? t("status.live") : t(`connection.${status}`));
    if (open && !opened) void load(), void log.load();
    opened = open;
  });
  if (!opened) void load(), void log.load();
  const ends = [every(3_000, look), every(5_000, trend.load), every(1_000, () => (fleet.sample(), strip.draw(), table.draw()))];
  return {
    end() {
      over = true;
      following.unsubscribe();
      quiet();
      ends.forEach((stop) => stop());
      draw.stop();
      trend.end();
      log.end();
    },
  };
}

/** How many there are, and the first counters as rates. */
function tileStrip(fleet, place) {
  const there = tile(t("Instances"));
  const shown = new Map();
  fill(place, there.element);
  return {
    draw() {
      const all = [...fleet.instances.values()];
      const down = all.filter(({ status }) => status === "down").length;
      there.show(number(all.length - down), "", down ? t("{n} are down", { n: number(down) }) : all.length ? t("all are up") : "\u00a0");
      for (const name of fleet.names("counters").slice(0, TILES_MAX)) {
        if (!shown.has(name)) {
          shown.set(name, tile(name));
          place.append(shown.get(name).element);
        }
        const rates = fleet.rates(name);
        const rate = rates.at(-1);
        shown.get(name).show(rate === undefined ? "–" : IN_BYTES.test(name) ? bytes(rate, 1) : short(rate), rate === undefined ? "" : "/s", t("{amount} altogether", { amount: amount(name, fleet.total(name)) }), rates);
      }
    },
  };
}

function instanceTable(fleet, chose) {
  const heads = h("tr");
  const rows = h("tbody");
  const note = h("p.note.pad", { hidden: true }, t("The first {n} are shown.", { n: INSTANCES_MAX }));
  const empties = h("div", null, waiting());
  const region = h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("Instances"), hidden: true }, h("table.live", null, h("thead", null, heads), rows));
  const made = new Map();
  let columns = "";
  const table = {
    element: card(t("Instances"), empties, region, note),
    /** The one that is looked at, or all. */
    chosen: "",
    loaded() {
      if (!fleet.instances.size) table.nothing();
    },
    nothing() {
      fill(empties, empty("sources", t("Nothing was heard yet"), t("Instances appear with their first event.")));
    },
    failed(problem, again) {
      if (!fleet.instances.size) fill(empties, failed(problem, again));
    },
    draw() {
      const all = fleet.sorted.slice(0, INSTANCES_MAX);
      // The last of them may have gone.
      if (!all.length && !region.hidden) table.nothing();
      region.hidden = !all.length;
      if (all.length && empties.firstChild) fill(empties);
      note.hidden = fleet.last === undefined;
      const names = [...fleet.names("gauges"), ...fleet.names("counters")].slice(0, COLUMNS_MAX);
      if (names.join() !== columns) {
        columns = names.join();
        made.clear();
        fill(heads, h("th", { scope: "col" }, t("Instance")), names.map((name) => h("th.num", { scope: "col" }, name)), h("th", { scope: "col" }, t("Seen")));
      }
      const wanted = all.map((one) => {
        if (!made.has(key(one))) made.set(key(one), instanceRow(one, names, press));
        const row = made.get(key(one));
        row.show(one, table.chosen === key(one));
        return row.element;
      });
      if (rows.children.length !== wanted.length || wanted.some((row, at) => rows.children[at] !== row)) fill(rows, wanted);
      for (const name of made.keys()) if (!fleet.instances.has(name)) made.delete(name);
    },
  };
  const press = (name) => {
    table.chosen = table.chosen === name ? "" : name;
    table.draw();
    chose();
  };
  return table;
}

function instanceRow(one, names, press) {
  const button = h("button.name", { type: "button", onclick: () => press(key(one)) }, key(one));
  const down = pill("failed", t("status.down"));
  const facts = h("div.note.facts");
  const cells = names.map(() => h("td.num"));
  const seen = h("td.note.when");
  return {
    element: h("tr", { "data-instance": key(one) }, h("th", { scope: "row" }, h("div.row.tight", null, button, down), facts), cells, seen),
    show(now, chosen) {
      button.setAttribute("aria-pressed", String(chosen));
      down.hidden = now.status !== "down";
      say(facts, Object.values(now.static ?? {}).filter((fact) => ["string", "number"].includes(typeof fact) && fact !== key(now)).slice(0, 3).join(" · "));
      names.forEach((name, at) => say(cells[at], amount(name, now.gauges?.[name] ?? totals(now)[name])));
      say(seen, now.at ? ago(now.at) : "–");
    },
  };
}

function trendCard(source, table) {
  const { tidings } = me;
  let metric;
  let counter = false;
  let span = "quarter";
  let offered = "";
  let asked = 0;
  const metrics = h("div");
  const wrong = h("div.told.bad", { hidden: true });
  const note = h("p.note", { "data-test": "trend" }, "\u00a0");
  const plot = chart({ label: t("Trend"), height: 230, series: [{ label: t("Value"), colour: "--tide", fill: true }], value: (v) => (IN_BYTES.test(metric ?? "") ? bytes(v) : short(v)) });
  const spans = [["quarter", t("15 minutes")], ["hour", t("an hour")], ["day", t("a day")], ["week", t("a week")], ["month", t("a month")], ["year", t("a year")]];
  const load = async () => {
    if (!metric) return;
    const mine = ++asked;
    const [seconds, step] = SPANS[span];
    const instance = table.chosen;
    const to = Date.now();
    try {
      const { points } = await tidings.request("GET", "/v1/trends", { query: { source: source.id, instance: instance || undefined, metric, from: new Date(to - seconds * 1000).toISOString(), to: new Date(to).toISOString(), step, tz: Intl.DateTimeFormat().resolvedOptions().timeZone } });
      if (mine !== asked) return;
      const values = points.map((point) => point.sum ?? point.avg ?? null);
      const known = values.filter((value) => value !== null);
      // The last one is not over yet: a sum that has hardly begun would look like a fall.
      if (counter && known.length > 2 && values.at(-1) !== null) values[values.length - 1] = null;
      const name = `${metric} · ${instance || t("all instances")}`;
      const told = !known.length ? t("Nothing was measured in this time.") : counter
        ? t("{amount} altogether, {most} {each} at most", { amount: amount(metric, known.reduce((sum, value) => sum + value, 0)), most: amount(metric, Math.max(...known)), each: STEPS[step]() })
        : t("{mean} on average, {most} at most", { mean: amount(metric, known.reduce((sum, value) => sum + value, 0) / known.length), most: amount(metric, Math.max(...points.map(({ max }) => max ?? -Infinity))) });
      wrong.hidden = true;
      say(note, told);
      plot.show([points.map(({ at }) => new Date(at).getTime() / 1000), values], { labels: [name], about: `${t("Trend")}: ${name}, ${spans.find(([value]) => value === span)[1]}. ${told}` });
    } catch (problem) {
      if (mine !== asked) return;
      wrong.hidden = false;
      say(wrong, problem.message);
    }
  };
  const offer = (counters, gauges) => {
    const names = [...counters, ...gauges];
    if (names.join() === offered || !names.length) return;
    offered = names.join();
    if (!names.includes(metric)) metric = counters.find((name) => /rx$/.test(name)) ?? names[0];
    const pick = (name) => {
      metric = name;
      counter = counters.includes(name);
      void load();
    };
    fill(metrics, names.length > 1 && choice(names.map((name) => [name, name]), metric, pick, t("Metric")));
    pick(metric);
  };
  return {
    element: h("section.card", { "aria-label": t("Trend") }, h("header", null, h("h2", null, t("Trend")), choice(spans, span, (value) => ((span = value), void load()), t("Time span"))), h("div.body", null, metrics, plot.element, note, wrong)),
    load,
    metrics: offer,
    end: plot.end,
  };
}

function logCard(source, table) {
  const { tidings } = me;
  const list = h("div.lines", { tabindex: "0", role: "region", "aria-label": t("Log") }, waiting());
  let lines = [];
  /** Shown, and perhaps not in the log yet. */
  let fresh = [];
  let asked = 0;
  const same = (a, b) => a.at === b.at && a.instance === b.instance && a.text === b.text;
  const draw = eachFrame(() => {
    const all = [...fresh, ...lines].slice(0, LINES_MAX);
    if (!all.length) return fill(list, empty("messages", t("No lines"), t("What instances log appears here.")));
    fill(list, h("ol", null, all.map((line) => h("li", null, h("time.note", { datetime: line.at, title: moment(line.at) }, clock(line.at)), h("span.who", null, line.instance ?? ""), h("span.mono", null, line.text ?? "")))));
  });
  return {
    element: card(t("Log"), list),
    async load() {
      const mine = ++asked;
      try {
        const { logs } = await tidings.request("GET", "/v1/logs", { query: { source: source.id, instance: table.chosen || undefined, limit: LINES_MAX } });
        if (mine !== asked) return;
        lines = logs;
        fresh = fresh.filter((line) => (!table.chosen || line.instance === table.chosen) && (!logs.length || line.at >= logs[0].at) && !logs.some((kept) => same(kept, line)));
        draw();
      } catch (problem) {
        if (mine === asked && !lines.length && !fresh.length) fill(list, failed(problem, this.load));
      }
    },
    line(line) {
      if (table.chosen && line.instance !== table.chosen) return;
      if (lines.some((kept) => same(kept, line)) || fresh.some((one) => same(one, line))) return;
      fresh = [line, ...fresh].slice(0, LINES_MAX);
      draw();
    },
    end: draw.stop,
  };
}

function removeDialog(source, gone) {
  const { tidings } = me;
  const go = action(t("Remove"), async () => {
    await tidings.request("DELETE", `/v1/sources/${encodeURIComponent(source.id)}`);
    box.close();
    toast(t("Removed."));
    await gone();
  }, { danger: true });
  const box = dialog(t("Remove {name}?", { name: source.name }), h("div.fields", null, h("p", null, t("Its instances, its trends and its log go with it.")), h("div.row.end", null, h("button.button", { type: "button", onclick: () => box.close() }, t("Keep it")), go)));
}

function amount(name, given) {
  if (given === undefined || given === null) return "–";
  return IN_BYTES.test(name) ? bytes(given, 2) : number(given, Math.abs(given) < 100 ? 1 : 0);
}
