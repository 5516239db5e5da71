import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Tidings } from "../dist/tidings.js";
import { freePort, post, proxy, replica, until } from "./harness.mjs";

function client(t, url, options = {}) {
  const made = new Tidings(url, options);
  t.after(() => made.dispose());
  return made;
}

const numbers = (count, from = 0) => Array.from({ length: count }, (_, n) => n + from);

for (const way of ["ws", "sse"]) {
  suite(`over ${way}`, { concurrency: true }, () => {
    test("what is published is received, by callback and by iterator", async (t) => {
      const { url } = await replica(t);
      const tidings = client(t, url, { user: "7", ways: [way] });
      const had = [];
      const subscription = tidings.subscribe("order:*", { onMessage: (message) => had.push(message) });
      await subscription.ready;
      assert.equal(tidings.state.status, "open");
      assert.equal(tidings.state.way, way);
      const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
      const { seq } = await tidings.publish({ topic: "order:7", data: { step: "packed" }, kind: "shipped", traceparent });
      await until(() => had.length === 1);
      assert.equal(had[0].traceparent, traceparent);
      assert.deepEqual({ ...had[0].data, seq: had[0].seq, kind: had[0].kind }, { step: "packed", seq, kind: "shipped" });
      const iterated = tidings.subscribe("parcel:1");
      await iterated.ready;
      await post(url, numbers(5).map((data) => ({ topic: "parcel:1", data })));
      const taken = [];
      for await (const { data } of iterated) {
        taken.push(data);
        if (data === 4) break;
      }
      assert.deepEqual(taken, numbers(5));
      const untraced = (await tidings.history("parcel:1", { since: "2020-01-01T00:00:00Z" })).messages;
      assert.ok(untraced.every((message) => !("traceparent" in message)));
      assert.equal(had.length, 1);
    });

    test("cut off again and again, it has every message once and in order", async (t) => {
      const { url, port } = await replica(t);
      const net = await proxy(t, port);
      const tidings = client(t, net.url, { user: "7", ways: [way] });
      const had = [];
      await tidings.subscribe("order:*", { onMessage: ({ data }) => had.push(data) }).ready;
      for (const round of numbers(3)) {
        await post(url, numbers(20, round * 40).map((data) => ({ topic: `order:${data % 3}`, data })));
        net.cut();
        await post(url, numbers(20, round * 40 + 20).map((data) => ({ topic: `order:${data % 3}`, data })));
        await until(() => had.length >= (round + 1) * 40);
      }
      assert.deepEqual(had, numbers(120));
    });

    test("what comes while it is away is had, also on topics that were added meanwhile", async (t) => {
      const { url, port } = await replica(t);
      const net = await proxy(t, port);
      const tidings = client(t, net.url, { user: "7", ways: [way] });
      const [one, other] = [[], []];
      await tidings.subscribe("one", { onMessage: ({ data }) => one.push(data) }).ready;
      const [{ cursor }] = await post(url, [{ topic: "other", data: -1 }]);
      await post(url, numbers(10).map((data) => ({ topic: "other", data })));
      net.cut();
      tidings.subscribe("other", { cursor, onMessage: ({ data }) => other.push(data) });
      await post(url, numbers(10).map((data) => ({ topic: "one", data })));
      await until(() => one.length === 10 && other.length === 10);
      assert.deepEqual([one, other], [numbers(10), numbers(10)]);
    });

    test("a log that does not go on is told as a reset, and then it goes on", async (t) => {
      const first = await replica(t);
      const tidings = client(t, first.url, { user: "7", ways: [way] });
      const [had, resets] = [[], []];
      await tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data), onReset: ({ reason }) => resets.push(reason) }).ready;
      await post(first.url, [{ topic: "order:7", data: 1 }]);
      await until(() => had.length === 1);
      first.child.kill("SIGKILL");
      await first.ended;
      const second = await replica(t, { port: first.port });
      await until(() => resets.length === 1);
      await post(second.url, [{ topic: "order:7", data: 2 }]);
      await until(() => had.length === 2);
      assert.deepEqual([had, resets], [[1, 2], ["epoch"]]);
    });

    test("an iterator that takes nothing keeps a bounded number, and has all when it goes on", async (t) => {
      const { url } = await replica(t);
      const tidings = client(t, url, { user: "7", ways: [way] });
      const slow = tidings.subscribe("order:7");
      let others = 0;
      await Promise.all([slow.ready, tidings.subscribe("order:*", { onMessage: () => others++ }).ready]);
      for (const at of numbers(5)) await post(url, numbers(1000, at * 1000).map((data) => ({ topic: "order:7", data })));
      await until(() => others === 5000);
      assert.ok(slow.waiting.length <= 1000, `${slow.waiting.length} wait`);
      const taken = [];
      for await (const { data } of slow) {
        taken.push(data);
        if (taken.length === 5000) break;
      }
      assert.deepEqual(taken, numbers(5000));
      assert.equal(others, 5000);
    });

    test("a task is told as it stands and never goes back, to each that follows it", async (t) => {
      const { url, port } = await replica(t);
      const net = await proxy(t, port);
      const tidings = client(t, net.url, { user: "7", ways: [way] });
      const task = await tidings.tasks.submit({
        action: "try", items: numbers(40).map(String), concurrency: 2, executor: { type: "simulate", delay_ms: 40 },
      });
      const had = [[], []];
      const follow = (which) => tidings.subscribe(`task:${task.id}`, { onMessage: ({ kind, data }) => had[which].push([data.current, kind]) });
      await follow(0).ready;
      await until(() => had[0].length > 2);
      follow(1);
      await until(() => had[1].length > 0);
      net.cut();
      await until(() => had.every((all) => all.at(-1)?.[1] === "task.finished"));
      for (const all of had) {
        assert.deepEqual(all.map(([current]) => current), all.map(([current]) => current).sort((a, b) => a - b));
        assert.equal(all.at(-1)[0], 40);
        assert.equal(all.filter(([, kind]) => kind === "task.finished").length, 1);
      }
      const late = [];
      tidings.subscribe(`task:${task.id}`, { onMessage: ({ data }) => late.push(data.status) });
      await until(() => late.length === 1);
      assert.deepEqual(late, ["completed"]);
    });

    test("a server that went silent is left for another connection", async (t) => {
      const { url, port } = await replica(t, { env: { TIDINGS_HEARTBEAT_S: "1" } });
      const net = await proxy(t, port);
      const tidings = client(t, net.url, { user: "7", ways: [way] });
      const had = [];
      await tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) }).ready;
      const { session } = tidings.state;
      net.silence(true);
      await post(url, [{ topic: "order:7", data: 1 }]);
      await until(() => tidings.state.status !== "open");
      net.cut();
      net.silence(false);
      await until(() => had.length === 1);
      assert.notEqual(tidings.state.session, session);
    });
  });
}

suite("a client", { concurrency: true }, () => {
  test("falls back to a stream where WebSockets are blocked", async (t) => {
    const { url } = await replica(t);
    class Blocked {
      constructor() {
        queueMicrotask(() => this.onclose({ code: 1006, reason: "" }));
      }
      close() {}
    }
    const tidings = client(t, url, { user: "7", WebSocket: Blocked });
    const had = [];
    await tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) }).ready;
    assert.equal(tidings.state.way, "sse");
    await tidings.publish({ topic: "order:7", data: 1 });
    await until(() => had.length === 1);
  });

  test("that is made anew with the same storage misses nothing", async (t) => {
    const { url } = await replica(t);
    const kept = new Map();
    const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
    const had = [];
    const open = () => {
      const tidings = client(t, url, { user: "7", storage });
      tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) });
      return tidings;
    };
    const first = open();
    await until(() => first.state.status === "open");
    await post(url, [{ topic: "order:7", data: 0 }]);
    await until(() => had.length === 1);
    first.close();
    await post(url, [{ topic: "order:7", data: 1 }]);
    open();
    await until(() => had.length === 2);
    await post(url, [{ topic: "order:7", data: 2 }]);
    await until(() => had.length === 3);
    assert.deepEqual(had, [0, 1, 2]);
  });

  test("keeps the cursor of what its iterator has not done with", async (t) => {
    const { url } = await replica(t);
    const tidings = client(t, url, { user: "7" });
    const subscription = tidings.subscribe("order:7");
    await subscription.ready;
    await post(url, numbers(3).map((data) => ({ topic: "order:7", data })));
    const iterator = subscription[Symbol.asyncIterator]();
    await iterator.next();
    await until(() => subscription.waiting.length === 2);
    const had = [];
    client(t, url, { user: "7" }).subscribe("order:7", { cursor: subscription.cursor, onMessage: ({ data }) => had.push(data) });
    await until(() => had.length === 3);
    assert.deepEqual(had, [0, 1, 2], "the first is in hand, and nobody said that it is done");
  });

  test("publishes once, though nobody answers at first", async (t) => {
    const port = await freePort();
    const tidings = client(t, `http://127.0.0.1:${port}`);
    const published = tidings.publish({ topic: "order:7", data: 1 });
    const { url } = await replica(t, { port });
    const { duplicate } = await published;
    assert.equal(duplicate, false);
    const page = await tidings.history("order:7", { since: "2020-01-01T00:00:00Z" });
    assert.equal(page.messages.length, 1);
    assert.equal(url, `http://127.0.0.1:${port}`);
  });

  test("tells what it does, and does nothing after it was closed", async (t) => {
    const { url } = await replica(t);
    const tidings = client(t, url, { user: "7" });
    const states = [];
    tidings.onState(({ status }) => states.push(status));
    await tidings.subscribe("order:7").ready;
    tidings.close();
    assert.deepEqual(states, ["idle", "connecting", "open", "idle"]);
    tidings.connect();
    await until(() => tidings.state.status === "open");
  });

  test("says what is wrong with a question", async (t) => {
    const { url } = await replica(t);
    const tidings = client(t, url, { user: "7" });
    await assert.rejects(tidings.publish({ topic: "no topic", data: 1 }), { name: "Problem", code: "invalid", status: 422 });
    await assert.rejects(tidings.history("a", { after: "zzzz-1" }), (problem) => problem.code === "gone" && problem.cursor !== undefined);
    await assert.rejects(tidings.tasks.get("none"), { code: "not-found" });
    const nobody = client(t, `http://127.0.0.1:${await freePort()}`);
    await assert.rejects(nobody.tasks.get("none"), { code: "unreachable", status: 0 });
  });

  test("a handler that throws stops nothing", async (t) => {
    const { url } = await replica(t);
    const errors = [];
    const tidings = client(t, url, { user: "7", onError: (error) => errors.push(error.message) });
    const had = [];
    tidings.subscribe("order:7", { onMessage: () => { throw new Error("mine"); } });
    await tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) }).ready;
    await tidings.publish({ topic: "order:7", data: 1 });
    await until(() => had.length === 1);
    assert.deepEqual(errors, ["mine"]);
  });
});
