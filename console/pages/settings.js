// What is in force on the replica that answers, and where each value came from.
import { me } from "/console/lib/connection.js";
import { fill, h, say } from "/console/lib/dom.js";
import { card, choice, empty, failed, waiting } from "/console/lib/parts.js";
import { t } from "/console/lib/words.js";

export function settings(place) {
  const { tidings } = me;
  const list = h("div", null, waiting());
  const about = h("p", null, "\u00a0");
  let all = [];
  let words = "";
  let which = "all";
  const search = h("input", { type: "search", placeholder: t("Search"), "aria-label": t("Search settings"), oninput: () => ((words = search.value.toLowerCase()), draw()) });
  fill(place, h("div.page", null, h("div.page-head", null, h("div", null, h("h1", null, t("page.settings")), about)), card(null, h("header", null, choice([["all", t("All")], ["changed", t("Not the default")]], which, (value) => ((which = value), draw()), t("Which")), h("div.grow"), h("div.search", null, search)), h("div.body.flush", null, list))));

  const changed = (one) => one.source !== "default" && one.value !== one.default;
  const draw = () => {
    const wanted = all.filter((one) => (which === "all" || changed(one)) && `${one.key} ${one.help} ${one.part}`.toLowerCase().includes(words));
    let part;
    fill(list, wanted.length ? wanted.map((one) => [
      one.part !== part && h("h2.settings-part", null, (part = one.part)),
      h(`div.setting${changed(one) ? ".changed" : ""}`, null, h("code", null, one.key), h("div.value", null, one.secret ? h("span.note", null, t("set, and secret")) : h("code", null, one.value === "" ? "–" : one.value)), h("div.help", null, one.help), h("div.from", null, one.source === "default" ? t("the default") : one.source)),
    ]) : empty("settings", t("Nothing fits"), t("No setting fits this filter.")));
  };
  const load = async () => {
    try {
      const answer = await tidings.request("GET", "/v1/settings");
      all = answer.settings;
      say(about, t("In force on {replica}. They are changed where it is started, not here.", { replica: answer.replica }));
      draw();
    } catch (problem) {
      fill(list, problem.status === 404 ? empty("settings", t("Not on this server"), t("This server does not tell its settings.")) : failed(problem, load));
    }
  };
  void load();
  return () => {};
}
