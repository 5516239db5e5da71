// Topics as they are spoken on: live, and looking back; and a place to speak.
import { me } from "/console/lib/connection.js";
import { eachFrame, fill, h, say } from "/console/lib/dom.js";
import { action, busy, card, empty, field, pretty, toast } from "/console/lib/parts.js";
import { clock, moment, number, read, t, write } from "/console/lib/words.js";

const SHOWN_MAX = 300;
const BACK = 100;
const KEPT = "tidings.topics";

export function messages(place) {
  const { tidings } = me;
  const following = new Map();
  const feed = h("ul.feed", { tabindex: "0", "aria-label": t("Messages"), "aria-live": "off" });
  const chips = h("div.chips", { role: "group", "aria-label": t("Topics that are followed") });
  const topic = h("input", { placeholder: "order:*", "aria-label": t("Topic to follow"), spellcheck: "false", autocapitalize: "off" });
  const state = h("p", { "data-test": "following" });
  let paused = false;
  let waiting = [];
  let shown = [];

  const draw = eachFrame(() => {
    const fresh = waiting.splice(0).slice(-SHOWN_MAX);
    shown = [...fresh.reverse(), ...shown].slice(0, SHOWN_MAX);
    feed.prepend(...fresh);
    while (feed.children.length > shown.length) feed.lastChild.remove();
    quiet();
  });
  const put = (element) => {
    waiting.push(element);
    if (waiting.length > SHOWN_MAX) waiting.shift();
    if (paused) say(pause, t("Go on ({n} wait)", { n: number(waiting.length) }));
    else draw();
  };
  const quiet = () => {
    const isEmpty = shown.length === 0;
    nothing.hidden = !isEmpty;
    feed.hidden = isEmpty;
  };
  const nothing = empty("messages", t("Nothing was said yet"), t("Follow a topic, or all that begin alike with a * at the end, and publish on it: from here, from your application, or from SQL."));

  const follow = (name) => {
    if (!name || following.has(name)) return;
    const chip = h("span.chip.on", null, name, h("button.x", { type: "button", "aria-label": t("Leave {topic}", { topic: name }), onclick: () => forget(name) }, "×"));
    const one = tidings.subscribe(name, {
      onMessage: (message) => put(row(message)),
      onGap: ({ topic, dropped }) => put(marker(t("{n} signals on {topic} were dropped.", { n: dropped, topic }))),
      onReset: () => put(marker(t("The log does not go on from where this page was: something may be missing here."))),
      onError: (problem) => {
        toast(`${name}: ${problem.message}`, "bad");
        forget(name);
      },
      remember: false,
    });
    following.set(name, one);
    chips.append(chip);
    one.chip = chip;
    keep();
  };
  const forget = (name) => {
    const one = following.get(name);
    following.delete(name);
    one?.chip.remove();
    one?.unsubscribe();
    keep();
  };
  const keep = () => {
    write(KEPT, JSON.stringify([...following.keys()]));
    say(state, following.size === 1 ? t("Follows one topic, newest first.") : following.size ? t("Follows {n} topics, newest first.", { n: following.size }) : t("Follows nothing."));
  };

  const pause = action(t("Pause"), () => {
    paused = !paused;
    say(pause, paused ? t("Go on") : t("Pause"));
    if (!paused) draw();
  }, { small: true });
  const clear = action(t("Clear"), () => {
    shown = [];
    waiting = [];
    fill(feed);
    quiet();
  }, { small: true, bare: true });

  fill(place, h("div.page", null,
    h("div.page-head", null, h("div", null, h("h1", null, t("page.messages")), state)),
    h("div.split", null,
      h("section.card", { "aria-label": t("Live") }, h("header", null, h("form.row", { class: "row grow", onsubmit: (event) => (event.preventDefault(), follow(topic.value.trim()), (topic.value = "")) }, topic, h("button.button.small", { type: "submit" }, t("Follow"))), pause, clear), h("div.body", null, chips), nothing, feed),
      h("div.page", null, publishCard(), backCard((found) => {
        for (const one of found) put(row(one, true));
      })))));
  quiet();
  let kept = ["*"];
  try {
    const read_ = JSON.parse(read(KEPT) ?? "null");
    if (Array.isArray(read_)) kept = read_.filter((name) => typeof name === "string").slice(0, 20);
    else if (!me.admin) kept = [];
  } catch {
    // As at the first visit.
  }
  kept.forEach(follow);
  keep();
  return () => {
    for (const one of following.values()) one.unsubscribe();
    draw.stop();
  };
}

function marker(text) {
  return h("li.marker", { role: "note" }, text);
}

function row(message, old = false) {
  const text = JSON.stringify(message.data);
  const details = h("details.message", null, h("summary", null, h("span.when", null, clock(message.at)), h("span.topic", { title: message.topic }, message.topic), h("span.data", null, message.kind && h("span.kind", null, message.kind), gist(message) ?? (text.length > 400 ? `${text.slice(0, 400)}…` : text)), h("span.tail", null, message.seq === null ? t("signal") : `#${message.seq}`)));
  // Only who opens it is shown the whole of it.
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const { type, data, ...rest } = message;
    details.append(h("div.inside", null, h("p.note", null, `${moment(message.at)} · ${message.class} · ${message.priority}${message.cursor ? ` · ${message.cursor}` : ""}`), h("pre.snippet", { tabindex: "0" }, pretty({ ...rest, data }))));
  });
  return h(old ? "li" : "li.fresh", null, details);
}

/** What it says in a few words, where that is known; all of it is inside. */
function gist({ kind, data }) {
  if (kind !== "task.progress" && kind !== "task.finished") return null;
  return `${data.action} · ${t("{done} of {all}", { done: number(data.current), all: number(data.total) })} · ${t(`status.${data.status}`)}`;
}

function publishCard() {
  const { tidings } = me;
  const topic = h("input.mono", { value: "order:7", required: true, spellcheck: "false" });
  const kind = h("input", { placeholder: "shipped", maxlength: 200 });
  const which = h("select", null, ["event", "state", "signal"].map((name) => h("option", { value: name }, t(`class.${name}`))));
  const key = h("input", { placeholder: t("of a state or signal"), maxlength: 200 });
  const data = h("textarea.mono", { spellcheck: "false", rows: 4, value: '{"step":"packed"}' });
  const result = h("div.told", { role: "status", hidden: true, "data-test": "published" });
  const go = h("button.button.primary", { type: "submit" }, t("Publish"));
  const tell = (kindOf, text) => {
    result.hidden = false;
    result.className = `told ${kindOf}`;
    say(result, text);
  };
  const send = (event) => {
    event.preventDefault();
    let value;
    try {
      value = JSON.parse(data.value);
      data.removeAttribute("aria-invalid");
    } catch (error) {
      data.setAttribute("aria-invalid", "true");
      return tell("bad", t("This is no JSON: {why}", { why: error.message }));
    }
    void busy(go, async () => {
      try {
        const done = await tidings.publish({ topic: topic.value.trim(), data: value, class: which.value, ...(kind.value && { kind: kind.value }), ...(key.value && { key: key.value }) });
        tell("good", done.seq === null ? t("Sent. A signal is not kept, and nobody says whether it arrived.") : t("Durable as number {seq}.", { seq: number(done.seq) }));
      } catch (problem) {
        tell("bad", problem.message);
      }
    });
  };
  return card(t("Publish"), h("div.body", null, h("form.fields", { onsubmit: send }, field(t("Topic"), topic), h("div.two", null, field(t("Kind"), kind), field(t("Key"), key)), field(t("Class"), which), field(t("Data, as JSON"), data), result, h("div.row.end", null, go))));
}

function backCard(found) {
  const { tidings } = me;
  const topic = h("input.mono", { value: me.admin ? "*" : "", required: true, spellcheck: "false" });
  const from = h("select", null, [[300, t("5 minutes ago")], [3_600, t("an hour ago")], [86_400, t("a day ago")], [604_800, t("a week ago")], ["cursor", t("a cursor")]].map(([value, text]) => h("option", { value }, text)));
  const cursor = h("input.mono", { placeholder: "k3f9-1042", spellcheck: "false" });
  const cursorField = field(t("Cursor"), cursor);
  cursorField.hidden = true;
  from.addEventListener("change", () => (cursorField.hidden = from.value !== "cursor"));
  const result = h("div.told", { role: "status", hidden: true });
  const more = h("button.button.small", { type: "button", hidden: true }, t("The next ones"));
  const go = h("button.button", { type: "submit" }, t("Look back"));
  let next;
  const ask = (button, query) => busy(button, async () => {
    try {
      const page = await tidings.history(topic.value.trim(), { ...query, limit: BACK });
      next = page.cursor;
      more.hidden = !page.more;
      found(page.messages);
      result.className = "told good";
      say(result, t("{n} messages were found.", { n: page.messages.length }) + (page.more ? ` ${t("There are more.")}` : ""));
    } catch (problem) {
      result.className = "told bad";
      say(result, problem.code === "gone" ? t("That is no longer kept; the oldest cursor still good is {cursor}.", { cursor: problem.cursor }) : problem.message);
    }
    result.hidden = false;
  });
  more.addEventListener("click", () => ask(more, { after: next }));
  const submit = (event) => {
    event.preventDefault();
    void ask(go, from.value === "cursor" ? { after: cursor.value.trim() } : { since: new Date(Date.now() - Number(from.value) * 1000).toISOString() });
  };
  return card(t("Look back"), h("div.body", null, h("form.fields", { onsubmit: submit }, field(t("Topic"), topic), field(t("From"), from), cursorField, result, h("div.row.end", null, more, go))));
}
