// How the installation is: replicas, rates, latency, who is there.
import { me } from "/console/lib/connection.js";
import { chart } from "/console/lib/chart.js";
import { every, fill, h, say, set } from "/console/lib/dom.js";
import { action, card, empty, failed, pill, repill, tile, toast, waiting } from "/console/lib/parts.js";
import { ago, duration, number, short, t } from "/console/lib/words.js";

const EVERY_MS = 2_000;
/** Ten minutes of points. */
const POINTS_MAX = 300;
/** A replica that has not answered three calls. */
const SILENT_MS = 5_000;
const GONE_MS = 15_000;

export function overview(place) {
  const { tidings } = me;
  const health = h("p", { "data-test": "health" }, t("Asking the replicas…"));
  const tiles = {
    published: tile(t("Published")),
    delivered: tile(t("Delivered")),
    sessions: tile(t("Sessions")),
    log: tile(t("Log head")),
    trip: tile(t("Round trip")),
  };
  const rates = chart({ label: t("Messages a second, live"), series: [{ label: t("Published"), colour: "--tide", fill: true }, { label: t("Delivered"), colour: "--violet" }], value: short });
  const replicas = h("div.replicas", null, waiting());
  const online = h("div", null, waiting());
  fill(place, h("div.page", null,
    h("div.page-head", null, h("div", null, h("h1", null, t("page.overview")), health)),
    h("div.tiles", null, Object.values(tiles).map(({ element }) => element)),
    h("section", { "aria-label": t("Replicas") }, replicas),
    h("div.split", null, card(t("Messages a second"), h("div.body", null, rates.element)), card(t("Who is here"), online))));

  const history = { at: [], published: [], delivered: [], sessions: [], head: [], trip: [] };
  let before = new Map();
  let cards = new Map();
  let shown = false;

  const note = (name, value) => {
    history[name].push(value);
    if (history[name].length > POINTS_MAX) history[name].shift();
  };

  /** From the publish of this page to its own receipt, over whatever replicas. */
  const topic = `console:${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;
  const trips = [];
  const echo = tidings.subscribe(topic, {
    onMessage: ({ data }) => {
      trips.push(performance.now() - data);
      if (trips.length > 60) trips.shift();
    },
  });
  const ping = async () => {
    if (tidings.state.status !== "open") return;
    await tidings.publish({ topic, class: "signal", data: performance.now() }).catch(() => {});
  };

  const look = async () => {
    let all;
    try {
      ({ replicas: all } = await tidings.request("GET", "/v1/replicas"));
    } catch (problem) {
      say(health, problem.status === 0 ? t("The server does not answer; what is shown is old.") : problem.message);
      if (!shown) fill(replicas, card(null, failed(problem, look)));
      return;
    }
    shown = true;
    void ping();
    show(all);
  };

  const show = (all) => {
    const now = performance.now() / 1000;
    const here = all.filter(({ heard_ms }) => heard_ms < SILENT_MS);
    const grown = { published: 0, delivered: 0 };
    const rate = new Map();
    for (const one of here) {
      const counts = { at: now - one.heard_ms / 1000, published: one.publish.messages, delivered: one.hub.deliveries, uptime: one.uptime_s };
      const last = before.get(one.replica);
      // One that was started anew counts from zero.
      if (last && counts.uptime >= last.uptime && counts.at > last.at + 0.2) {
        const seconds = counts.at - last.at;
        const each = { published: Math.max(0, counts.published - last.published) / seconds, delivered: Math.max(0, counts.delivered - last.delivered) / seconds };
        rate.set(one.replica, each);
        grown.published += each.published;
        grown.delivered += each.delivered;
      }
      before.set(one.replica, counts);
    }
    const sum = (of) => here.reduce((total, one) => total + (of(one) ?? 0), 0);
    const head = Math.max(0, ...all.map(({ log }) => log.applied ?? 0));
    const sessions = sum(({ sessions }) => sessions);
    note("at", Date.now() / 1000);
    note("published", rate.size ? grown.published : null);
    note("delivered", rate.size ? grown.delivered : null);
    note("sessions", sessions);
    note("head", head);
    const trip = trips.at(-1);
    if (trip !== undefined) note("trip", trip);
    const lag = Math.max(0, ...here.map(({ log }) => Math.max(log.behind ?? 0, 0)));
    tiles.published.show(rate.size ? short(grown.published) : "–", "/s", t("{n} in all", { n: short(sum(({ publish }) => publish.messages)) }), history.published);
    tiles.delivered.show(rate.size ? short(grown.delivered) : "–", "/s", t("{n} in all", { n: short(sum(({ hub }) => hub.deliveries)) }), history.delivered);
    tiles.sessions.show(short(sessions), "", t("{n} subscriptions", { n: short(sum(({ subscriptions }) => subscriptions)) }), history.sessions);
    tiles.log.show(number(head), "", lag ? t("{n} behind at most", { n: number(lag) }) : t("all replicas are there"), history.head.map((seq) => seq - history.head[0]));
    if (trips.length) {
      const sorted = [...trips].sort((a, b) => a - b);
      tiles.trip.show(number(trip, 1), "ms", t("p50 {a} · p95 {b} ms", { a: number(sorted[sorted.length >> 1]), b: number(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.95))]) }), history.trip);
    } else tiles.trip.show("–", "", t("there and back"));
    rates.show([history.at, history.published, history.delivered]);
    sentence(all);
    const fresh = new Map();
    for (const one of all) {
      const made = cards.get(one.replica) ?? replicaCard(one.replica);
      made.show(one, rate.get(one.replica));
      fresh.set(one.replica, made);
    }
    if ([...fresh.keys()].join() !== [...cards.keys()].join() || replicas.firstChild?.className === "wait") fill(replicas, [...fresh.values()].map(({ element }) => element));
    cards = fresh;
  };

  const sentence = (all) => {
    const silent = all.filter(({ heard_ms }) => heard_ms >= SILENT_MS);
    const ill = all.filter(({ heard_ms, listener }) => heard_ms < SILENT_MS && !["live", "catching_up"].includes(listener));
    if (silent.length) say(health, t("{names}: not heard for {time}. Its clients go elsewhere by themselves.", { names: silent.map(({ replica }) => replica).join(", "), time: duration(silent[0].heard_ms / 1000) }));
    else if (ill.length) say(health, t("{names}: the listener is not live.", { names: ill.map(({ replica }) => replica).join(", ") }));
    else say(health, all.length === 1 ? t("One replica, and it is well.") : t("{n} replicas, and all are well.", { n: all.length }));
  };

  const replicaCard = (name) => {
    const bus = pill("live");
    const you = h("span.pill.plain.tide", { hidden: true }, t("you are here"));
    const facts = {};
    const fact = (key, label) => h("div", null, h("dt", null, label), (facts[key] = h("dd", null, "–")));
    const error = h("div.lasterror", { hidden: true });
    const foot = h("span");
    const kill = me.demo && action(t("Kill"), async () => {
      await tidings.request("POST", "/v1/demo/kill", { query: { replica: name } });
      toast(t("{name} was told to die, as by kill -9.", { name }));
    }, { small: true, danger: true, "aria-label": t("Kill {name}", { name }), "data-kill": name });
    const element = h("article.card.replica", { "data-replica": name },
      h("div.title", null, h("strong", null, name), you, bus),
      h("dl", null, fact("sessions", t("Sessions")), fact("published", t("Published")), fact("delivered", t("Delivered")), fact("lag", t("Behind")), fact("tasks", t("Tasks")), fact("uptime", t("Up for"))),
      error, h("div.foot", null, foot, kill));
    return {
      element,
      show(one, rate) {
        const [silent, gone] = [one.heard_ms >= SILENT_MS, one.heard_ms >= GONE_MS];
        set(element, { class: `card replica${gone ? " gone" : silent ? " silent" : ""}` });
        if (silent) repill(bus, "down", t("not heard for {time}", { time: duration(one.heard_ms / 1000) }));
        else if (one.draining) repill(bus, "polling", t("leaving"));
        else repill(bus, one.listener);
        you.hidden = tidings.state.replica !== name || tidings.state.status !== "open";
        say(facts.sessions, number(one.sessions));
        say(facts.published, rate && !silent ? `${short(rate.published)}/s` : "–");
        say(facts.delivered, rate && !silent ? `${short(rate.delivered)}/s` : "–");
        say(facts.lag, number(Math.max(0, one.log.behind ?? 0)));
        say(facts.tasks, number(one.tasks?.running ?? 0));
        say(facts.uptime, duration(one.uptime_s));
        say(foot, `v${one.version} · ${t("{n} in memory", { n: short(one.log.ring_messages) })}`);
        error.hidden = !one.last_error;
        if (one.last_error) say(error, `${ago(one.last_error.at)}: ${one.last_error.what}`);
        if (kill) kill.disabled = silent;
      },
    };
  };

  const people = async () => {
    try {
      const { users, more } = await tidings.online({ limit: 12 });
      fill(online, users.length ? h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("Who is here") }, h("table", null, h("thead", null, h("tr", null, h("th", null, t("User")), h("th.num", null, t("Sessions")), h("th", null, t("On")))), h("tbody", null, users.map((user) => h("tr", null, h("td", null, user.user), h("td.num", null, number(user.sessions)), h("td.note", null, user.replicas.join(", "))))), more && h("tfoot", null, h("tr", null, h("td.note", { colspan: 3 }, t("and more"))))) ) : empty("person", t("Nobody is here"), t("Users appear as soon as they open a session.")));
    } catch (problem) {
      fill(online, problem.status === 404 ? empty("person", t("Not on this server"), t("This server does not know who is here.")) : failed(problem, people));
    }
  };

  const ends = [every(EVERY_MS, look), every(5_000, people)];
  return () => {
    ends.forEach((stop) => stop());
    echo.unsubscribe();
    rates.end();
  };
}
