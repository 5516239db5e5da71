import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Tidings } from "../dist/tidings.js";
import { replica, until } from "./harness.mjs";

function client(t, url, options = {}) {
  const made = new Tidings(url, options);
  t.after(() => made.dispose());
  return made;
}

suite("the inbox", { concurrency: true }, () => {
  for (const way of ["ws", "sse"]) {
    test(`a notice is had once, missed or live, and the server hears that it was received, over ${way}`, async (t) => {
      const { url } = await replica(t);
      const admin = client(t, url, { user: "admin" });
      const send = async (title) => (await admin.request("POST", "/v1/notices", { body: { target: { users: ["7"] }, title, confirm: true } })).notice.id;
      const missed = await send("missed");
      const mine = client(t, url, { user: "7", ways: [way] });
      const [had, counts] = [[], []];
      mine.inbox.follow({ onNotice: ({ title }) => had.push(title), onCounts: (now) => counts.push(now) });
      await until(() => had.length === 1);
      await send("live");
      await until(() => had.length === 2);
      assert.deepEqual(had, ["missed", "live"]);
      await until(async () => (await admin.request("GET", `/v1/notices/${missed}`)).received === 1);
      assert.deepEqual(await mine.inbox.counts(), { unread: 2, unconfirmed: 2 });
      assert.deepEqual(await mine.inbox.markRead("all"), { unread: 0, unconfirmed: 2 });
      assert.deepEqual(await mine.inbox.markConfirmed([missed]), { unread: 0, unconfirmed: 1 });
      await until(() => counts.at(-1)?.unread === 0 && counts.at(-1)?.unconfirmed === 1);
      const { notices } = await mine.inbox.list({ state: "all" });
      assert.deepEqual(notices.map(({ title, state }) => [title, state]), [["live", "read"], ["missed", "confirmed"]]);
    });
  }

  test("a notice that was recalled is told", async (t) => {
    const { url } = await replica(t);
    const mine = client(t, url, { user: "7" });
    const recalled = [];
    const had = [];
    mine.inbox.follow({ onNotice: ({ id }) => had.push(id), onRecall: (id) => recalled.push(id) });
    await until(() => mine.state.status === "open");
    const { notice } = await mine.request("POST", "/v1/notices", { body: { target: "all", title: "to all" } });
    await until(() => had.length === 1);
    await mine.request("DELETE", `/v1/notices/${notice.id}`);
    await until(() => recalled.length === 1);
    assert.deepEqual([had, recalled], [[notice.id], [notice.id]]);
  });

  test("who is there is told by name and by topic", async (t) => {
    const { url } = await replica(t);
    const mine = client(t, url, { user: "7" });
    await mine.subscribe("order:7").ready;
    await until(async () => (await mine.online()).users.some(({ user, sessions }) => user === "7" && sessions === 1));
    await until(async () => (await mine.presence("order:7")).users.length === 1);
  });
});
