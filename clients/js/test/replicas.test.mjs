import assert from "node:assert/strict";
import { test } from "node:test";
import { Tidings } from "../dist/tidings.js";
import { demo, until } from "./harness.mjs";

const ROUNDS = 3;

test("replicas over one Postgres are killed, and clients have every message once and in order", async (t) => {
  const { urls, kill, replicas } = await demo(t);
  const followers = ["ws", "ws", "sse", "sse"].map((way, at) => {
    // Each begins elsewhere.
    const addresses = [...urls.slice(at % 3), ...urls.slice(0, at % 3)];
    const tidings = new Tidings(addresses, { user: `follower-${at}`, ways: [way] });
    t.after(() => tidings.dispose());
    const had = [];
    const { ready } = tidings.subscribe("order:*", { onMessage: ({ data }) => had.push(data) });
    return { tidings, had, ready };
  });
  await Promise.all(followers.map(({ ready }) => ready));
  const publisher = new Tidings(urls, {});
  t.after(() => publisher.dispose());
  let next = 0;
  let publishing = true;
  const published = (async () => {
    while (publishing) await publisher.publish({ topic: `order:${next % 5}`, data: next++ });
  })();
  for (let round = 0; round < ROUNDS; round++) {
    const victim = followers[round].tidings.state.replica;
    const before = next;
    const process = replicas.get(victim).pid;
    kill(victim, round === 1 ? "SIGTERM" : "SIGKILL");
    await until(() => next > before + 50 && replicas.get(victim).pid !== process, 60_000);
  }
  publishing = false;
  await published;
  const all = Array.from({ length: next }, (_, n) => n);
  for (const { had } of followers) await until(() => had.length >= next, 60_000);
  for (const { had } of followers) assert.deepEqual(had, all);
});

test("a bar that is watched on a replica that is killed arrives at its end", async (t) => {
  const { urls, kill } = await demo(t);
  const watcher = new Tidings([urls[1], urls[2]], { user: "7" });
  t.after(() => watcher.dispose());
  const submitter = new Tidings(urls[0], { user: "7" });
  const task = await submitter.tasks.submit({
    action: "try", items: Array.from({ length: 200 }, (_, n) => `node-${n}`), concurrency: 5, executor: { type: "simulate", delay_ms: 100 },
  });
  const bar = [];
  let last;
  watcher.subscribe(`task:${task.id}`, { onMessage: ({ kind, data }) => (bar.push(data.progress), (last = kind)) });
  await until(() => bar.length > 3);
  kill("replica-2");
  await until(() => last === "task.finished", 60_000);
  assert.equal(bar.at(-1), 100);
  assert.deepEqual(bar, [...bar].sort((a, b) => a - b));
});
