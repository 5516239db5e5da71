// Sources of telemetry: what each says now, live, and how it went.
import { me } from "/console/lib/connection.js";
import { chart } from "/console/lib/chart.js";
import { eachFrame, every, fill, h, icon, say } from "/console/lib/dom.js";
import { absent, action, busy, card, choice, dialog, empty, failed, field, pill, repill, toast, waiting } from "/console/lib/parts.js";
import { ago, bytes, number, short, t } from "/console/lib/words.js";

const SPANS = { hour: [3_600, "1m"], day: [86_400, "1m"], week: [604_800, "1h"], month: [2_592_000, "1h"], year: [34_560_000, "1d"] };
const COUNTED = /(^|_)(rx|tx|bytes)$/;

export function sources(place, wanted) {
  const { tidings } = me;
  const body = h("div", null, waiting());
  const add = h("button.button.primary", { type: "button", hidden: true, onclick: () => addDialog(load) }, icon("plus", 16), t("New source"));
  fill(place, h("div.page", null, h("div.page-head", null, h("div", null, h("h1", null, t("page.sources")), h("p", null, t("Streams of telemetry that one replica reads for all."))), add), body));
  let view;
  let over = false;

  const load = async () => {
    try {
      const answer = await tidings.request("GET", "/v1/sources");
      if (over) return;
      add.hidden = false;
      const all = answer.sources ?? [];
      view?.end();
      view = undefined;
      if (!all.length) return fill(body, card(null, empty("sources", t("No sources yet"), t("A source is an address that sends events about its instances; or events are pushed to this server."), h("pre.snippet", { tabindex: "0" }, `POST /v1/ingest\n{"source":"edge-1","events":[…]}`))));
      const chosen = all.find(({ id }) => id === wanted) ?? all[0];
      const picker = all.length > 1 ? choice(all.map(({ id, name }) => [id, name]), chosen.id, (id) => (location.hash = `#/sources/${encodeURIComponent(id)}`), t("Source")) : null;
      const inside = h("div.page");
      fill(body, h("div.page", null, picker, inside));
      view = sourceView(chosen, inside, load);
    } catch (problem) {
      if (over) return;
      fill(body, card(null, problem.status === 404 ? absent(t("telemetry")) : failed(problem, load)));
    }
  };
  void load();
  return () => {
    over = true;
    view?.end();
  };
}

function sourceView(source, place, changed) {
  const { tidings } = me;
  const path = `/v1/sources/${encodeURIComponent(source.id)}`;
  const rows = h("tbody");
  const instances = new Map();
  const heads = h("tr");
  const empties = h("div", null, waiting());
  const table = h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("Instances"), hidden: true }, h("table", null, h("thead", null, heads), rows));
  const standing = ({ enabled, status }) => (enabled === false ? "disabled" : source.url ? (status ?? "idle") : "pushed");
  const status = pill(standing(source));
  const detail = h("div.told.warn", { hidden: !source.detail }, source.detail ?? "");
  const remove = action(t("Remove"), async () => { await tidings.request("DELETE", path); toast(t("Removed.")); await changed(); }, { small: true, danger: true });
  const test = source.url && action(t("Test"), async () => { const answer = await tidings.request("POST", `${path}/test`); toast(answer.ok ? t("It answers: {n} events came.", { n: number(answer.events) }) : answer.detail, answer.ok ? "" : "bad"); }, { small: true });
  const switchIt = action(source.enabled === false ? t("Switch on") : t("Switch off"), async () => { await tidings.request("PATCH", path, { body: { enabled: source.enabled === false } }); await changed(); }, { small: true });
  let metric;
  let instance = "";
  let span = "hour";
  const metrics = h("div");
  const plot = chart({ label: t("Trend"), height: 240, series: [{ label: t("Value"), colour: "--tide", fill: true }], value: (v) => (COUNTED.test(metric ?? "") ? bytes(v) : short(v)) });
  const plotNote = h("p.note", null, "\u00a0");
  const logs = h("div.items", { tabindex: "0", role: "region", "aria-label": t("Log") }, waiting());
  fill(place,
    h("section.card", { "aria-label": source.name }, h("header", null, h("h2", null, source.name), status, test, switchIt, remove), h("div.body", null, h("p.note", null, [source.format, source.url].filter(Boolean).join(" · ") || t("pushed to this server")), detail), empties, table),
    h("section.card", { "aria-label": t("Trend") }, h("header", null, h("h2", null, t("Trend")), choice([["hour", t("an hour")], ["day", t("a day")], ["week", t("a week")], ["month", t("a month")], ["year", t("a year")]], span, (value) => ((span = value), trend()), t("Time span"))), h("div.body", null, metrics, plot.element, plotNote)),
    card(t("Log"), h("div.body.flush", null, logs)));

  const columns = () => {
    const names = new Set();
    for (const one of instances.values()) for (const name of [...Object.keys(one.gauges ?? {}), ...Object.keys(one.counters ?? {})]) names.add(name);
    return [...names].sort().slice(0, 8);
  };
  let shownColumns = "";
  const draw = eachFrame(() => {
    const names = columns();
    const all = [...instances.values()].sort((a, b) => (key(a) < key(b) ? -1 : 1)).slice(0, 300);
    table.hidden = !all.length;
    empties.hidden = all.length > 0;
    if (names.join() !== shownColumns) {
      shownColumns = names.join();
      fill(heads, h("th", null, t("Instance")), names.map((name) => h("th.num", null, name)), h("th", null, t("Seen")));
      metric ??= names.find((name) => /rx$/.test(name)) ?? names[0];
      fill(metrics, names.length > 1 && choice(names.map((name) => [name, name]), metric, (name) => ((metric = name), trend()), t("Metric")));
      void trend();
    }
    fill(rows, all.map((one) => h("tr", { "data-instance": key(one) }, h("td", null, h("button.button.small.bare", { type: "button", "aria-pressed": String(instance === key(one)), onclick: () => ((instance = instance === key(one) ? "" : key(one)), draw(), trend()) }, key(one))), names.map((name) => h("td.num", null, value(name, one.gauges?.[name] ?? one.totals?.[name] ?? one.counters?.[name]))), h("td.note", null, one.at ?? one.updated_at ? ago(one.at ?? one.updated_at) : "–"))));
  });

  const load = async () => {
    try {
      const answer = await tidings.request("GET", `${path}/instances`);
      for (const one of answer.instances ?? []) instances.set(key(one), one);
      if (!instances.size) fill(empties, empty("sources", t("Nothing was heard yet"), t("Instances appear with their first event.")));
      draw();
    } catch (problem) {
      fill(empties, failed(problem, load));
    }
  };
  let asked = 0;
  const trend = async () => {
    if (!metric) return;
    const mine = ++asked;
    const [seconds, step] = SPANS[span];
    try {
      const { points } = await tidings.request("GET", "/v1/trends", { query: { source: source.id, instance: instance || undefined, metric, from: new Date(Date.now() - seconds * 1000).toISOString(), to: new Date().toISOString(), step, tz: Intl.DateTimeFormat().resolvedOptions().timeZone } });
      if (mine !== asked) return;
      plot.show([points.map(({ at }) => new Date(at).getTime() / 1000), points.map((point) => point.sum ?? point.avg ?? null)]);
      say(plotNote, `${metric} · ${instance || t("all instances")} · ${t("by {step}", { step })}`);
    } catch (problem) {
      if (mine === asked) say(plotNote, problem.message);
    }
  };
  const readLogs = async () => {
    try {
      const answer = await tidings.request("GET", "/v1/logs", { query: { source: source.id, limit: 100 } });
      const lines = answer.logs ?? [];
      fill(logs, lines.length ? h("table", null, h("tbody", null, lines.map((line) => h("tr", null, h("td.note", null, ago(line.at)), h("td", null, line.instance ?? ""), h("td.mono", null, line.text ?? ""))))) : empty("messages", t("No lines"), t("What instances log appears here.")));
    } catch (problem) {
      fill(logs, problem.status === 404 ? absent(t("logs")) : failed(problem, readLogs));
    }
  };

  const following = tidings.subscribe(`source:${source.id}`, {
    remember: false,
    onMessage: ({ kind, data, at }) => {
      if (kind === "instance.state" || kind === "instance.created") {
        const name = key(data);
        instances.set(name, { ...instances.get(name), ...data, at: data.at ?? at });
        draw();
      } else if (kind === "instance.deleted") {
        instances.delete(key(data));
        draw();
      } else if (kind === "source.status") {
        repill(status, standing({ ...source, ...data }));
        detail.hidden = !data.detail;
        say(detail, data.detail ?? "");
      }
    },
    onReset: load,
  });
  void load();
  const ends = [every(15_000, trend), every(10_000, readLogs)];
  return {
    end() {
      following.unsubscribe();
      ends.forEach((stop) => stop());
      draw.stop();
      plot.end();
    },
  };
}

function key(one) {
  return one.instance ?? one.id ?? one.name ?? "";
}

function value(name, given) {
  if (given === undefined || given === null) return "–";
  return COUNTED.test(name) ? bytes(given) : number(given, 2);
}

function addDialog(added) {
  const { tidings } = me;
  const name = h("input", { required: true, placeholder: "edge-1" });
  const url = h("input", { type: "url", placeholder: "https://host/api/v1/events" });
  const format = h("select", null, h("option", { value: "generic" }, "generic"), h("option", { value: "nodepass" }, "nodepass"));
  const header = h("input", { placeholder: "authorization: …", autocomplete: "off", spellcheck: "false" });
  const wrong = h("div.told.bad", { role: "alert", hidden: true });
  const go = h("button.button.primary", { type: "submit" }, t("Add"));
  const send = (event) => {
    event.preventDefault();
    void busy(go, async () => {
      const [head, ...rest] = header.value.split(":");
      const headers = rest.length ? { [head.trim()]: rest.join(":").trim() } : {};
      try {
        await tidings.request("POST", "/v1/sources", { body: { name: name.value.trim(), format: format.value, enabled: true, ...(url.value.trim() && { url: url.value.trim() }), ...(rest.length && { headers }) } });
        box.close();
        await added();
      } catch (problem) {
        wrong.hidden = false;
        say(wrong, problem.message);
      }
    });
  };
  const box = dialog(t("New source"), h("form.fields", { onsubmit: send }, field(t("Name"), name), field(t("Address of its event stream"), url, t("Without one, events are pushed to this server.")), field(t("Format"), format), field(t("A header"), header, t("Kept, and never shown again.")), wrong, h("div.row.end", null, go)));
}
