// The bell: what this user was told, as he would see it in any application.
import { h, fill, icon, say } from "/console/lib/dom.js";
import { absent, action, empty, failed, pill, toast, waiting } from "/console/lib/parts.js";
import { ago, t } from "/console/lib/words.js";
import { me } from "/console/lib/connection.js";

export function bell(tidings) {
  if (me.user === null) return { element: h("span", { hidden: true }), end: () => {} };
  let counts = { unread: 0, unconfirmed: 0 };
  let known = true;
  const badge = h("span.badge", { hidden: true, "aria-hidden": "true", "data-test": "unread" });
  const button = h("button.round", { "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => toggle() }, icon("notices"), badge);
  const list = h("div.notices");
  const all = action(t("Mark all as read"), async () => { show(await tidings.inbox.markRead("all")); await load(); }, { small: true, bare: true });
  const panel = h("section.panel", { hidden: true, role: "dialog", "aria-label": t("Your notices") }, h("header", null, h("h2", null, t("Your notices")), all), list);
  const element = h("div", null, button, panel);

  const show = (now) => {
    counts = now;
    badge.hidden = counts.unread === 0;
    say(badge, counts.unread > 99 ? "99+" : counts.unread);
    button.setAttribute("aria-label", counts.unread ? t("Notices, {n} unread", { n: counts.unread }) : t("Notices"));
  };

  const row = (notice) => {
    const unread = !["read", "confirmed"].includes(notice.state);
    const asks = notice.confirm && notice.state !== "confirmed";
    return h(`div.notice${unread ? ".unread" : ""}`, { "data-notice": notice.id },
      h("div.head", null, h("strong", null, notice.title), ["urgent", "high"].includes(notice.priority) && pill("failed", t(`priority.${notice.priority}`)), h("span.note", null, ago(notice.created_at))),
      notice.content && h("p.content", null, notice.content),
      (unread || asks) && h("div.row", null,
        unread && action(t("Mark as read"), async () => { show(await tidings.inbox.markRead([notice.id])); await load(); }, { small: true }),
        asks && action(t("Confirm"), async () => { show(await tidings.inbox.markConfirmed([notice.id])); await load(); }, { small: true, primary: true })));
  };

  const load = async () => {
    if (panel.hidden) return;
    if (!known) return fill(list, absent(t("notices")));
    try {
      const { notices } = await tidings.inbox.list({ state: "all", limit: 50 });
      fill(list, notices.length ? notices.map(row) : empty("notices", t("Nothing for you yet"), t("Notices that are sent to you appear here, also those that came while you were away.")));
      all.hidden = !notices.some(({ state }) => !["read", "confirmed"].includes(state));
    } catch (problem) {
      fill(list, failed(problem, load));
    }
  };

  const toggle = (open = panel.hidden) => {
    panel.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) {
      fill(list, waiting());
      void load();
    }
  };
  const outside = (event) => !panel.hidden && !event.composedPath().includes(element) && toggle(false);
  const escape = (event) => event.key === "Escape" && !panel.hidden && (toggle(false), button.focus());
  document.addEventListener("click", outside);
  document.addEventListener("keydown", escape);

  show(counts);
  const refresh = async () => {
    try {
      show(await tidings.inbox.counts());
    } catch (problem) {
      // An older server has no inbox; what else went wrong is shown by the connection.
      if (problem.status === 404) known = false;
    }
  };
  void refresh();
  const stop = tidings.inbox.follow({
    onNotice: (notice) => {
      toast(`${notice.title}${notice.content ? ` — ${notice.content}` : ""}`);
      void load();
    },
    onRecall: () => load(),
    onCounts: (now) => {
      show(now);
      void load();
    },
  });
  return { element, end: () => (stop(), document.removeEventListener("click", outside), document.removeEventListener("keydown", escape)) };
}
