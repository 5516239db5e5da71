import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Tidings } from "../dist/tidings.js";
import { guarded, replica, token, until } from "./harness.mjs";

function client(t, url, options = {}) {
  const made = new Tidings(url, options);
  t.after(() => made.dispose());
  return made;
}

/** Every state, and how long it then meant to wait. */
function watched(tidings) {
  const states = [];
  tidings.onState((state) => states.push({ ...state, waits: state.retryAt && state.retryAt - Date.now() }));
  return states;
}

test("pauses grow from half a second to twenty, and no two are alike", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  class Blocked {
    constructor() {
      queueMicrotask(() => this.onclose({ code: 1006, reason: "" }));
    }
    close() {}
  }
  const all = [];
  for (let n = 0; n < 2; n++) {
    const tidings = client(t, "http://127.0.0.1:1", { user: "7", ways: ["ws"], WebSocket: Blocked });
    const states = watched(tidings);
    tidings.connect();
    const waits = () => states.filter(({ status }) => status === "waiting").map((state) => state.waits);
    while (waits().length < 10) {
      for (let turn = 0; turn < 20; turn++) await Promise.resolve();
      t.mock.timers.tick(1_000);
    }
    waits().forEach((wait, at) => {
      const step = Math.min(500 * 2 ** at, 20_000);
      assert.ok(wait >= step && wait <= Math.min(step * 1.5, 20_000), `the pause ${at} was ${wait} ms`);
    });
    all.push(waits().slice(0, 5));
    tidings.dispose();
  }
  assert.notDeepEqual(all[0], all[1]);
});

suite("a client that is sent away", { concurrency: true }, () => {
  for (const [way, what] of [["ws", "waits as long as that has asked for"], ["sse", "comes back"]]) {
    test(`by a replica that leaves ${what}, over ${way}`, async (t) => {
      const { url, child, port, ended } = await replica(t);
      const asked = [];
      class Listening extends WebSocket {
        constructor(...all) {
          super(...all);
          this.addEventListener("close", ({ code, reason }) => asked.push({ code, ...JSON.parse(reason || "{}") }));
        }
      }
      const tidings = client(t, url, { user: "7", ways: [way], WebSocket: Listening });
      const states = watched(tidings);
      await tidings.subscribe("order:7").ready;
      child.kill("SIGTERM");
      const { waits } = await until(() => states.find(({ status }) => status === "waiting"));
      if (way === "ws") {
        assert.equal(asked[0].code, 1012);
        assert.ok(Math.abs(waits - asked[0].retry_after_ms) < 50, `${waits} and not ${asked[0].retry_after_ms}`);
      }
      await ended;
      await replica(t, { port });
      await until(() => tidings.state.status === "open");
    });
  }

  test("because there is no room comes in when there is", async (t) => {
    const { url } = await guarded(t, { env: { TIDINGS_SESSIONS_PER_USER_MAX: "1" } });
    const mine = await token("--sub", "7", "--topics", "order:*");
    const first = client(t, url, { token: mine });
    await first.subscribe("order:7").ready;
    const second = client(t, url, { token: mine, ways: ["ws"] });
    const states = watched(second);
    const followed = second.subscribe("order:7");
    const { error, waits } = await until(() => states.find(({ status }) => status === "waiting"));
    assert.match(error, /limit of sessions/);
    assert.ok(waits > 0 && waits <= 60_000, `${waits}`);
    first.close();
    await followed.ready;
  });
});
