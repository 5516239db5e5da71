import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Tidings } from "../dist/tidings.js";
import { guarded, token, until } from "./harness.mjs";

function client(t, url, options = {}) {
  const made = new Tidings(url, options);
  t.after(() => made.dispose());
  return made;
}

suite("rights", { concurrency: true }, () => {
  for (const way of ["ws", "sse"]) {
    test(`a topic that is not allowed is refused alone, over ${way}`, async (t) => {
      const { url } = await guarded(t);
      const mine = await token("--sub", "7", "--topics", "order:*");
      const tidings = client(t, url, { token: mine, ways: [way] });
      const had = [];
      const allowed = tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) });
      const secret = tidings.subscribe("secret");
      await assert.rejects(secret.ready, { code: "forbidden" });
      await assert.rejects(secret[Symbol.asyncIterator]().next(), { code: "forbidden" });
      await allowed.ready;
      await tidings.publish({ topic: "order:7", data: 1 });
      await until(() => had.length === 1);
    });

    test(`a token is renewed before it expires, over ${way}`, async (t) => {
      const { url } = await guarded(t);
      let asked = 0;
      const source = async () => token("--sub", "7", "--topics", "order:*", "--ttl-s", asked++ ? "600" : "31");
      const tidings = client(t, url, { token: source, ways: [way] });
      const had = [];
      await tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) }).ready;
      const { session } = tidings.state;
      await until(() => asked === 2 && tidings.state.status === "open");
      await tidings.publish({ topic: "order:7", data: 1 });
      await until(() => had.length === 1);
      if (way === "ws") assert.equal(tidings.state.session, session);
    });

    test(`a token that does not count is said, and not tried for ever, over ${way}`, async (t) => {
      const { url } = await guarded(t);
      const tidings = client(t, url, { token: "none of ours", ways: [way] });
      tidings.subscribe("order:7");
      await until(() => tidings.state.status === "refused");
      assert.match(tidings.state.error, /token/);
    });
  }

  test("rights that were taken away are told to those whom it concerns, and the others go on", async (t) => {
    const { url } = await guarded(t);
    let asked = 0;
    const source = async () => token("--sub", "7", "--topics", asked++ ? "order:*" : "*");
    const tidings = client(t, url, { token: source });
    const had = [];
    await tidings.subscribe("order:7", { onMessage: ({ data }) => had.push(data) }).ready;
    const parcel = tidings.subscribe("parcel:1");
    await parcel.ready;
    tidings.close();
    await tidings.http.credential(true);
    tidings.connect();
    await until(() => parcel.standing === "over");
    await tidings.publish({ topic: "order:7", data: 1 });
    await until(() => had.length === 1);
  });

  test("a question with an expired token is asked again with a fresh one", async (t) => {
    const { url } = await guarded(t);
    let asked = 0;
    const source = async () => (asked++ ? token("--sub", "7", "--topics", "order:*") : "none of ours");
    const tidings = client(t, url, { token: source });
    await tidings.publish({ topic: "order:7", data: 1 });
    assert.equal(asked, 2);
  });

  test("an API key follows what it likes", async (t) => {
    const { url } = await guarded(t);
    const tidings = client(t, url, { token: "the-key-of-the-tests" });
    const had = [];
    await tidings.subscribe("secret:*", { onMessage: ({ data }) => had.push(data) }).ready;
    await tidings.publish({ topic: "secret:1", data: 1 });
    await until(() => had.length === 1);
  });
});
