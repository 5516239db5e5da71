// The frame of the page: who looks, where he is, how the connection is.
import { dev, enter, keptName, keptToken, leave, me } from "/console/lib/connection.js";
import { fill, h, icon, say } from "/console/lib/dom.js";
import { busy, choice, dialog, field } from "/console/lib/parts.js";
import { language, read, speak, t, write } from "/console/lib/words.js";
import { bell } from "/console/lib/bell.js";
import { overview } from "/console/pages/overview.js";
import { tasks } from "/console/pages/tasks.js";
import { task } from "/console/pages/task.js";
import { messages } from "/console/pages/messages.js";
import { notices } from "/console/pages/notices.js";
import { sources } from "/console/pages/sources.js";
import { settings } from "/console/pages/settings.js";

/** Each page is given its place and what follows its name, and returns how to end it. */
const PAGES = { overview, tasks, messages, notices, sources, settings };
const app = document.getElementById("app");
let end = () => {};

function theme(wanted = read("tidings.theme")) {
  const dark = wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());

function settle() {
  return [
    choice([["en", "English"], ["zh", "中文"]], language, (name) => (speak(name), me ? frame() : begin()), t("Language")),
    choice([["light", t("Light")], ["dark", t("Dark")], ["", t("As the system")]], read("tidings.theme") ?? "", (name) => (write("tidings.theme", name || null), theme()), t("Theme")),
  ];
}

/** Asks who looks, unless that is known. */
async function begin() {
  end();
  const kept = dev ? keptName() : keptToken();
  if (!kept) return signIn();
  try {
    await enter(dev ? { user: kept } : { token: kept });
  } catch (problem) {
    return problem.passes ? unreachable() : signIn(problem);
  }
  frame();
}

function unreachable() {
  fill(app, h("main.door", null, h("div.card", null, h("img", { src: "/console/mark.svg", alt: "" }), h("h1", null, t("The server does not answer")), h("p", null, t("It may be starting. This page tries again by itself.")))));
  setTimeout(begin, 2_000);
}

function signIn(problem) {
  const wrong = h("div.told.bad", { role: "alert", hidden: !problem }, problem?.message ?? "");
  const control = dev
    ? h("input", { name: "user", autocomplete: "username", required: true, value: keptName() ?? "ada", pattern: "[A-Za-z0-9_.:\\/@\\-]{1,100}", autocapitalize: "off", spellcheck: "false" })
    : h("input", { name: "token", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const button = h("button.button.primary", { type: "submit" }, dev ? t("Look around") : t("Sign in"));
  const submit = (event) => {
    event.preventDefault();
    const value = control.value.trim();
    busy(button, async () => {
      try {
        await enter(dev ? { user: value } : { token: value });
      } catch (error) {
        wrong.hidden = false;
        say(wrong, error.message);
        control.setAttribute("aria-invalid", "true");
        return control.focus();
      }
      frame();
    });
  };
  const text = dev ? t("This server runs in dev mode: no token is needed, and everybody may do everything. Under which name?") : t("A token is an API key, or a JWT of your application. It is kept in this tab alone.");
  fill(app, h("main.door", null, h("form.card", { onsubmit: submit }, h("img", { src: "/console/mark.svg", alt: "" }), h("div.fields", null, h("h1", null, "Tidings"), h("p", null, text)), field(dev ? t("Name") : t("Token"), control), wrong, button, h("div.row", null, settle()))));
  control.focus();
}

function frame() {
  end();
  const { tidings } = me;
  const link = (name) => h("a", { href: `#/${name}`, "data-page": name }, icon(name), h("span", null, t(`page.${name}`)));
  const names = Object.keys(PAGES).filter((name) => me.admin || ["tasks", "messages"].includes(name));
  const place = h("main", { id: "main", tabindex: "-1" });
  const state = h("span.pill", { "data-test": "connection" });
  const banner = h("div.banner", { hidden: true, role: "status" });
  const ring = bell(tidings);
  const dark = h("button.round", { "aria-label": t("Light or dark"), onclick: () => { const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark"; write("tidings.theme", next); theme(); shade(); } });
  const shade = () => fill(dark, icon(document.documentElement.dataset.theme === "dark" ? "sun" : "moon"));
  shade();
  const account = h("button.button.small", { onclick: () => accountDialog(), "aria-label": t("Account: {name}", { name: me.user ?? t("API key") }) }, icon("person", 16), me.user ?? t("API key"));
  fill(app, h("a.skip", { href: "#main", onclick: (event) => (event.preventDefault(), place.focus()) }, t("Skip to the content")),
    h("div.shell", null,
      h("aside.side", null, h("a.brand", { href: "#/overview" }, h("img", { src: "/console/mark.svg", alt: "" }), "Tidings"), h("nav", { "aria-label": t("Pages") }, h("ul", null, names.map((name) => h("li", null, link(name))))), h("div.foot", null, me.dev && h("span", null, t("Dev mode: everybody may do everything")))),
      h("div.main", null, h("header.head", null, h("div.top", null, state, h("span.grow"), ring.element, dark, account), banner), place)));

  let page;
  const open = () => {
    const [, name = "", ...rest] = location.hash.split("/");
    const wanted = names.includes(name) ? name : names[0];
    page?.();
    page = undefined;
    for (const one of app.querySelectorAll("[data-page]")) {
      if (one.dataset.page === wanted) one.setAttribute("aria-current", "page");
      else one.removeAttribute("aria-current");
    }
    document.title = `${t(`page.${wanted}`)} · Tidings`;
    fill(place);
    scrollTo(0, 0);
    page = (wanted === "tasks" && rest.length ? task : PAGES[wanted])(place, decoded(rest.join("/")));
  };
  const moved = () => {
    open();
    place.focus({ preventScroll: true });
  };
  addEventListener("hashchange", moved);

  let tick;
  const showState = (now) => {
    clearInterval(tick);
    const left = () => Math.max(0, Math.ceil((now.retryAt - Date.now()) / 1000));
    const kind = now.status === "open" ? (now.degraded ? "warn" : "good") : now.status === "refused" ? "bad" : "warn moving";
    state.className = `pill ${kind}`;
    say(state, now.status === "open" ? `${now.replica} · ${t(`way.${now.way}`)}` : t(`connection.${now.status}`));
    state.dataset.status = now.status;
    state.dataset.replica = now.replica ?? "";
    state.dataset.session = now.session ?? "";
    const text = () => now.status === "waiting" ? t("The connection was lost: {why}. Coming back in {s} s; nothing is missed.", { why: now.error ?? "", s: left() }) : now.status === "refused" ? t("The server does not accept the token any more: {why}.", { why: now.error ?? "" }) : now.degraded ? t("This replica cannot reach the database just now. What you see stays; what you do may be refused.") : "";
    const shown = text();
    banner.hidden = !shown;
    banner.className = `banner${now.status === "refused" ? " bad" : ""}`;
    const line = h("span.grow", null, shown);
    fill(banner, line, now.status === "refused" && h("button.button.small", { onclick: () => (leave(), begin()) }, t("Sign in")));
    if (now.status === "waiting") tick = setInterval(() => say(line, text()), 1_000);
  };
  const quiet = tidings.onState(showState);
  end = () => {
    page?.();
    quiet();
    clearInterval(tick);
    ring.end();
    removeEventListener("hashchange", moved);
    end = () => {};
  };
  open();
}

/** What stands in an address may be anything. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function accountDialog() {
  const box = dialog(t("You"), h("div.fields", null,
    h("p", null, me.dev ? t("You are {name}, by your own word: this server runs in dev mode.", { name: me.user }) : t("You are {name}.", { name: me.user ?? t("the holder of an API key") })),
    settle(),
    h("div.row.end", null, h("button.button", { onclick: () => (box.close(), end(), leave(), begin()) }, me.dev ? t("Be somebody else") : t("Sign out")))));
}

theme();
speak(language);
void begin();
