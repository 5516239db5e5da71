// Sources of telemetry: which there are, and one of them at a time.
import { me } from "/console/lib/connection.js";
import { every, fill, h, icon, say } from "/console/lib/dom.js";
import { absent, busy, card, choice, dialog, empty, failed, field, waiting } from "/console/lib/parts.js";
import { t } from "/console/lib/words.js";
import { sourceView } from "/console/pages/source.js";

/** So many are buttons side by side, more are a list. */
const BUTTONS_MAX = 8;
const SHOWN_MAX = 1_000;
const EVERY_MS = 10_000;

export function sources(place, wanted) {
  const { tidings } = me;
  const body = h("div", null, waiting());
  const add = h("button.button.primary", { type: "button", hidden: true, onclick: () => addDialog(added) }, icon("plus", 16), t("New source"));
  fill(place, h("div.page", null, h("div.page-head", null, h("div", null, h("h1", null, t("page.sources")), h("p", null, t("Streams of telemetry that one replica reads for all."))), add), body));
  let view;
  let known;
  let over = false;

  const load = async () => {
    try {
      const { sources: all, more } = await tidings.request("GET", "/v1/sources", { query: { limit: SHOWN_MAX } });
      if (over) return;
      add.hidden = false;
      const names = all.map(({ id }) => id).join("\n");
      if (names === known) return;
      known = names;
      show(all, more);
    } catch (problem) {
      // What is shown stays; the frame says that the connection is away.
      if (over || (view && problem.passes)) return;
      view?.end();
      view = known = undefined;
      fill(body, card(null, problem.status === 404 ? absent(t("telemetry")) : failed(problem, load)));
    }
  };
  const show = (all, more) => {
    view?.end();
    view = undefined;
    if (!all.length) return fill(body, card(null, empty("sources", t("No sources yet"), t("A source is an address that sends events about its instances; or events are pushed to this server."), h("pre.snippet", { tabindex: "0" }, `POST /v1/ingest\n{"source":"edge-1","events":[…]}`))));
    const chosen = all.find(({ id }) => id === wanted) ?? all[0];
    const inside = h("div.page");
    fill(body, h("div.page", null, picker(all, chosen), more && h("p.note", null, t("The first {n} are shown.", { n: SHOWN_MAX })), inside));
    view = sourceView(chosen, inside, gone);
  };
  const gone = () => {
    known = undefined;
    return load();
  };
  const added = (id) => {
    if (wanted === id) return gone();
    location.hash = `#/sources/${encodeURIComponent(id)}`;
  };
  const stop = every(EVERY_MS, load);
  return () => {
    over = true;
    stop();
    view?.end();
  };
}

function picker(all, chosen) {
  const go = (id) => (location.hash = `#/sources/${encodeURIComponent(id)}`);
  if (all.length < 2) return null;
  if (all.length <= BUTTONS_MAX) return choice(all.map(({ id, name }) => [id, name]), chosen.id, go, t("Source"));
  const list = h("select", { onchange: () => go(list.value) }, all.map(({ id, name }) => h("option", { value: id, selected: id === chosen.id }, name)));
  return h("div.search", null, field(t("Source"), list));
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
        const { id } = await tidings.request("POST", "/v1/sources", { body: { name: name.value.trim(), format: format.value, enabled: true, ...(url.value.trim() && { url: url.value.trim() }), ...(rest.length && { headers }) } });
        box.close();
        await added(id);
      } catch (problem) {
        wrong.hidden = false;
        say(wrong, problem.message);
      }
    });
  };
  const box = dialog(t("New source"), h("form.fields", { onsubmit: send }, field(t("Name"), name), field(t("Address of its event stream"), url, t("Without one, events are pushed to this server.")), field(t("Format"), format), field(t("A header"), header, t("Kept, and never shown again.")), wrong, h("div.row.end", null, go)));
}
