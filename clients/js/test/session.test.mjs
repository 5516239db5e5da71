// What a session makes of frames, where a server would have to be very lucky to send them so.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CursorMemory } from "../dist/memory.js";
import { Session } from "../dist/session.js";

const settled = () => new Promise((resolve) => setImmediate(resolve));

function session() {
  const sent = [];
  const complaints = [];
  const made = new Session(new CursorMemory(undefined, ""), {
    wanted: () => made.subscribe(),
    message: () => {},
    complain: (error) => complaints.push(error),
  });
  const open = (resumed = { cursor: undefined, topics: [] }, cursor = "e-10") =>
    made.opened({ type: "welcome", cursor, topics: [], heartbeat_s: 15 }, resumed, (frame) => sent.push(frame));
  return { made, sent, open, complaints };
}

const message = (topic, seq, cursor, more = {}) => ({ type: "message", topic, seq, data: seq, ...(cursor && { cursor }), ...more });

function follow(made, topic, more = {}) {
  const had = [];
  const resets = [];
  const subscription = made.add(topic, { onMessage: ({ data }) => had.push(data), onReset: ({ cursor }) => resets.push(cursor), ...more });
  return { had, resets, subscription };
}

test("what overtook is not told again after a resume", async () => {
  const { made, sent, open } = session();
  const { had } = follow(made, "a");
  open();
  made.frame({ type: "ok", ref: sent[0].ref });
  made.frame(message("a", 12));
  made.lost();
  assert.deepEqual(made.resume(), { cursor: "e-10", topics: ["a"] });
  open(made.resume());
  made.frame(message("a", 11, "e-11"));
  made.frame(message("a", 12, "e-12"));
  made.frame(message("a", 12, "e-12"));
  assert.deepEqual(had, [12, 11]);
  assert.equal(made.cursor, "e-12");
});

test("a topic that is being replayed keeps its own cursor until it is done", async () => {
  const { made, sent, open } = session();
  open();
  const { had, subscription } = follow(made, "a", { cursor: "e-3" });
  await settled();
  assert.deepEqual(sent[0].topics, [{ topic: "a", cursor: "e-3" }]);
  made.frame({ type: "ok", ref: sent[0].ref });
  made.frame(message("a", 4));
  made.frame({ type: "cursor", cursor: "e-20" });
  assert.equal(subscription.cursor, "e-3", "5 may still be to come");
  made.lost();
  open(made.resume());
  assert.deepEqual(sent[1].topics, [{ topic: "a", cursor: "e-3" }]);
  made.frame({ type: "ok", ref: sent[1].ref });
  made.frame(message("a", 4));
  made.frame(message("a", 5));
  made.frame({ type: "replayed", from: "e-20", to: "e-20", count: 0 });
  assert.equal(subscription.cursor, "e-3", "that was the session's");
  made.frame({ type: "replayed", from: "e-3", to: "e-20", count: 2 });
  assert.equal(subscription.cursor, "e-20");
  assert.deepEqual(had, [4, 5]);
});

test("a reset of one that is replayed leaves the session where it is", async () => {
  const { made, sent, open } = session();
  const other = follow(made, "b");
  open();
  made.frame({ type: "ok", ref: sent[0].ref });
  const old = follow(made, "a", { cursor: "d-3" });
  await settled();
  made.frame({ type: "ok", ref: sent[1].ref });
  made.frame({ type: "reset", reason: "epoch", cursor: "e-30" });
  assert.deepEqual([old.resets, other.resets, made.cursor], [["e-30"], [], "e-10"]);
  made.frame(message("b", 20, "e-20"));
  assert.deepEqual(other.had, [20]);
});

test("a reset of the session is told to all, and a task is asked how it stands", async () => {
  const { made, sent, open } = session();
  const [topic, task] = [follow(made, "b"), follow(made, "task:1")];
  open();
  made.frame({ type: "ok", ref: sent[0].ref });
  made.frame(message("task:1", 4));
  made.frame({ type: "reset", reason: "overflow", cursor: "e-90" });
  await settled();
  assert.deepEqual([topic.resets, task.resets, made.cursor], [["e-90"], ["e-90"], "e-90"]);
  assert.deepEqual(sent.slice(1).map(({ op, topics }) => [op, topics]), [["unsubscribe", ["task:1"]], ["subscribe", ["task:1"]]]);
  made.frame({ type: "ok", ref: sent[2].ref });
  made.frame(message("task:1", 7));
  made.frame(message("b", 89));
  assert.deepEqual([task.had, topic.had], [[4, 7], []]);
});

test("of several topics the one that is refused is found", async () => {
  const { made, sent, open } = session();
  const all = ["a", "b", "c"].map((topic) => follow(made, topic));
  const fates = all.map(({ subscription }) => subscription.ready.then(() => "joined", ({ code }) => code));
  open();
  made.frame({ type: "error", ref: sent[0].ref, code: "forbidden", detail: "no" });
  for (const { ref, topics } of sent.slice(1)) {
    made.frame(topics[0] === "b" ? { type: "error", ref, code: "forbidden", detail: "no" } : { type: "ok", ref });
  }
  assert.deepEqual(await Promise.all(fates), ["joined", "forbidden", "joined"]);
});

test("a notice that comes again is told once, though it lies before the cursor", () => {
  const { made, open } = session();
  const { had } = follow(made, "user:7", { cursor: "e-10" });
  open();
  for (let times = 0; times < 2; times++) made.frame(message("user:7", 3, undefined, { replay: true }));
  assert.deepEqual(had, [3]);
});

test("signals are always new", () => {
  const { made, sent, open } = session();
  const { had } = follow(made, "a");
  open();
  made.frame({ type: "ok", ref: sent[0].ref });
  made.frame({ ...message("a", null), data: 1 });
  made.frame({ ...message("a", null), data: 1 });
  assert.deepEqual(had, [1, 1]);
});

test("what overtakes without end is remembered within bounds", () => {
  const { made, sent, open } = session();
  const { subscription } = follow(made, "a");
  open();
  made.frame({ type: "ok", ref: sent[0].ref });
  for (let seq = 11; seq < 70_000; seq++) made.frame(message("a", seq));
  assert.equal(subscription.seen.size, 65_536);
});

test("one who leaves a loop leaves the topic, unless somebody else follows it", async () => {
  const { made, sent, open } = session();
  open();
  const [one, other] = [follow(made, "a"), follow(made, "a")];
  await settled();
  one.subscription.unsubscribe();
  assert.equal(sent.length, 1);
  other.subscription.unsubscribe();
  assert.deepEqual(sent[1], { op: "unsubscribe", topics: ["a"] });
});
