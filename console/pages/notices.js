// Notices that were sent: to whom, and how far they have come with them.
import { me } from "/console/lib/connection.js";
import { every, fill, h, say } from "/console/lib/dom.js";
import { absent, action, busy, card, dialog, empty, failed, field, pill, toast, waiting } from "/console/lib/parts.js";
import { ago, moment, number, t } from "/console/lib/words.js";

const STATES = ["pending", "sent", "received", "read", "confirmed"];
const SHOWN = 20;
const EVERY_MS = 2_000;

export function notices(place) {
  const { tidings } = me;
  const list = h("div.notices", null, waiting());
  const sender = h("div");
  fill(place, h("div.page", null, h("div.page-head", null, h("div", null, h("h1", null, t("page.notices")), h("p", null, t("A notice reaches everybody, a role, or users by name; also those who are away.")))), h("div.split", null, card(t("Sent"), h("div.body.flush", null, list)), sender)));
  const rows = new Map();
  let known = true;

  const look = async () => {
    if (!known) return;
    try {
      const { notices: all } = await tidings.request("GET", "/v1/notices", { query: { limit: SHOWN } });
      const receipts = await Promise.all(all.map((notice) => tidings.request("GET", `/v1/notices/${encodeURIComponent(notice.id)}`).catch(() => null)));
      if (!sender.firstChild) fill(sender, sendCard(look));
      if (!all.length) {
        rows.clear();
        return fill(list, empty("notices", t("No notice was sent yet"), t("What you send appears here, with receipts that fill up while you look.")));
      }
      const elements = all.map((notice, at) => {
        const row = rows.get(notice.id) ?? noticeRow(notice, look);
        rows.set(notice.id, row);
        row.show({ ...notice, ...receipts[at] });
        return row.element;
      });
      if (list.children.length !== elements.length || elements.some((element, at) => list.children[at] !== element)) fill(list, elements);
    } catch (problem) {
      if (problem.status === 404) {
        known = false;
        fill(list, absent(t("notices")));
      } else if (!rows.size) fill(list, failed(problem, look));
    }
  };
  return every(EVERY_MS, look);
}

function noticeRow(notice, changed) {
  const { tidings } = me;
  const path = `/v1/notices/${encodeURIComponent(notice.id)}`;
  const steps = STATES.map((name) => ({ name, count: h("b", null, "–"), bar: h("i.at") }));
  const total = h("span.note");
  const recalled = h("span", { hidden: true }, pill("expired", t("recalled")));
  const recall = action(t("Recall"), async () => { await tidings.request("DELETE", path); toast(t("Recalled.")); await changed(); }, { small: true, danger: true });
  const resend = action(t("Send again"), async () => { await tidings.request("POST", `${path}/resend`); toast(t("Sent again to those who have not received it.")); await changed(); }, { small: true });
  const who = action(t("Who"), () => recipients(path, notice.title), { small: true, bare: true });
  const element = h("article.notice", { "data-notice": notice.id },
    h("div.head", null, h("strong", null, notice.title), notice.confirm && pill("read", t("asks to confirm")), recalled, h("span.note", null, ago(notice.created_at))),
    notice.content && h("p.content", null, notice.content),
    h("div.funnel", null, steps.map(({ name, count, bar }) => h("div", null, h("span", null, t(`status.${name}`)), count, h("div.bar", { "aria-hidden": "true" }, bar)))),
    h("div.row", null, h("span.grow", null, total), who, resend, recall));
  return {
    element,
    show(now) {
      const all = now.total ?? now.recipients ?? 0;
      // Each state contains those beyond it: who has read it has received it.
      let beyond = 0;
      for (const { name, count, bar } of [...steps].reverse()) {
        beyond += now[name] ?? 0;
        const reached = name === "pending" ? now.pending : beyond;
        say(count, reached === undefined ? "–" : number(reached));
        bar.style.width = `${all ? (100 * (reached ?? 0)) / all : 0}%`;
        bar.className = name === "confirmed" ? "ok" : name === "pending" ? "off" : name === "read" ? "by" : "at";
      }
      say(total, [target(now), now.total === undefined ? "" : t("{n} recipients so far", { n: number(all) }), now.online === undefined ? "" : t("{n} online", { n: number(now.online) }), now.expired ? t("{n} expired", { n: number(now.expired) }) : ""].filter(Boolean).join(" · "));
      recalled.hidden = !now.recalled_at;
      recall.hidden = resend.hidden = Boolean(now.recalled_at);
    },
  };
}

function target({ target: whom }) {
  if (whom === "all") return t("to everybody");
  if (typeof whom === "string") return t(`target.${whom}`);
  if (whom?.users) return t("to {names}", { names: whom.users.slice(0, 5).join(", ") });
  if (whom?.roles) return t("to the roles {names}", { names: whom.roles.join(", ") });
  return "";
}

async function recipients(path, title) {
  const page = await me.tidings.request("GET", `${path}/recipients`, { query: { limit: 200 } });
  dialog(title, page.recipients.length ? h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("Recipients") }, h("table", null, h("thead", null, h("tr", null, h("th", null, t("User")), h("th", null, t("State")), h("th", null, t("Since")))), h("tbody", null, page.recipients.map((one) => h("tr", null, h("td", null, one.user), h("td", null, pill(one.state)), h("td.note", null, moment(one.confirmed_at ?? one.read_at ?? one.received_at ?? one.sent_at))))))) : empty("person", t("Nobody yet"), t("A notice to everybody or to roles meets its recipients as they come.")));
}

function sendCard(sent) {
  const { tidings } = me;
  const whom = h("select", null, [["all", t("everybody")], ["users", t("users")], ["roles", t("roles")]].map(([value, text]) => h("option", { value }, text)));
  const names = h("input", { placeholder: "ada, grace" });
  const namesField = field(t("Names, with commas"), names);
  namesField.hidden = true;
  whom.addEventListener("change", () => (namesField.hidden = whom.value === "all"));
  const title = h("input", { required: true, maxlength: 500, placeholder: t("Maintenance") });
  const content = h("textarea", { rows: 3, placeholder: t("Tonight at 22:00") });
  const priority = h("select", null, ["normal", "high", "urgent", "low"].map((name) => h("option", { value: name }, t(`priority.${name}`))));
  const confirm = h("input", { type: "checkbox" });
  const result = h("div.told", { role: "status", hidden: true, "data-test": "notice-sent" });
  const go = h("button.button.primary", { type: "submit" }, t("Send"));
  const send = (event) => {
    event.preventDefault();
    const list = names.value.split(",").map((name) => name.trim()).filter(Boolean);
    void busy(go, async () => {
      try {
        const { notice } = await tidings.request("POST", "/v1/notices", { body: { target: whom.value === "all" ? "all" : { [whom.value]: list }, title: title.value, content: content.value, priority: priority.value, confirm: confirm.checked } });
        result.className = "told good";
        say(result, notice.recipients === null ? t("It is kept, and reaches whom it meets.") : t("It is kept for {n} recipients.", { n: number(notice.recipients) }));
        title.value = content.value = "";
        await sent();
      } catch (problem) {
        result.className = "told bad";
        say(result, problem.message);
      }
      result.hidden = false;
    });
  };
  return card(t("Send a notice"), h("div.body", null, h("form.fields", { onsubmit: send }, field(t("To"), whom), namesField, field(t("Title"), title), field(t("Text"), content), field(t("Priority"), priority), h("label.check", null, confirm, t("Ask to confirm")), result, h("div.row.end", null, go))));
}
