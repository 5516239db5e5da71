// The client on a page of somebody else, in a real browser: what wakes it, and what it keeps across reloads.
// The page's clock stands still, so that no timer of the client can do what a test says that an event does.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { post, proxy, replica } from "../../clients/js/test/harness.mjs";
import { browser as launch, root, until } from "./support.mjs";

let browser;
let pages;
let origin;
before(async () => {
  browser = await launch();
  pages = createServer(async (request, response) => {
    const path = new URL(request.url, "http://x").pathname;
    const file = await readFile(root + path.slice(1)).catch(() => null);
    response.writeHead(file ? 200 : 404, { "content-type": path.endsWith(".js") ? "text/javascript" : "text/html" });
    response.end(file);
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => pages.once("listening", resolve));
  origin = `http://127.0.0.1:${pages.address().port}`;
});
after(async () => {
  await browser?.close();
  pages?.close();
});

/** A page that follows `order:7` over a network that can be cut. */
async function open(t) {
  const { url, port } = await replica(t, { env: { TIDINGS_ALLOWED_ORIGINS: origin } });
  const net = await proxy(t, port);
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  t.after(() => assert.deepEqual(errors, []));
  await page.clock.install();
  // Before anything is loaded, or it would fire what waits.
  await page.clock.pauseAt(Date.now() + 1_000);
  const visit = async () => {
    await page.goto(`${origin}/tests/browser/page.html?server=${encodeURIComponent(net.url)}`);
    await until(() => page.evaluate(() => globalThis.tidings?.state.status === "open"));
    const [one, other] = [await page.evaluate(() => Date.now()), await page.evaluate(() => Date.now())];
    assert.equal(one, other, "its clock stands still");
  };
  await visit();
  const publish = (...all) => post(url, all.map((data) => ({ topic: "order:7", data })));
  const had = () => page.evaluate(() => globalThis.had);
  const status = () => page.evaluate(() => globalThis.tidings.state.status);
  return { page, context, net, publish, had, status, visit };
}

/** Playwright keeps every page visible, so that what the browser would say is said for it. */
function show(page, state) {
  return page.evaluate((told) => {
    Object.defineProperty(document, "visibilityState", { get: () => told, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, state);
}

suite("the client in a browser", () => {
  test("a page that is loaded again misses nothing and has nothing twice", async (t) => {
    const { page, publish, had, visit } = await open(t);
    await publish(0, 1);
    await until(async () => (await had()).length === 2);
    // The timer that writes cursors has not run: the page's going does it.
    await page.goto("about:blank");
    await publish(2, 3);
    await visit();
    await publish(4);
    await until(async () => (await had()).length >= 3);
    assert.deepEqual(await had(), [2, 3, 4]);
    await page.reload();
    await until(() => page.evaluate(() => globalThis.tidings?.state.status === "open"));
    await publish(5);
    await until(async () => (await had()).length >= 1);
    assert.deepEqual(await had(), [5]);
  });

  test("it comes back at once when the network is back", async (t) => {
    const { context, net, publish, had, status } = await open(t);
    await context.setOffline(true);
    net.cut();
    await until(async () => (await status()) === "waiting");
    await publish(1);
    assert.equal(await status(), "waiting", "no timer of it runs");
    await context.setOffline(false);
    await until(async () => (await status()) === "open");
    await until(async () => (await had()).length === 1);
    assert.deepEqual(await had(), [1]);
  });

  test("it comes back at once when somebody looks again, and its cursors are kept when nobody does", async (t) => {
    const { page, net, publish, had, status } = await open(t);
    await publish(1);
    await until(async () => (await had()).length === 1);
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    await show(page, "hidden");
    assert.match(await page.evaluate(() => localStorage.getItem("tidings:7")), /"order:7"/);
    net.cut();
    await until(async () => (await status()) === "waiting");
    await publish(2);
    await show(page, "hidden");
    assert.equal(await status(), "waiting", "nobody looks");
    await show(page, "visible");
    await until(async () => (await status()) === "open");
    await until(async () => (await had()).length === 2);
    assert.deepEqual(await had(), [1, 2]);
  });

  test("a page that the browser kept and shows again goes on", async (t) => {
    const { page, net, publish, had, status } = await open(t);
    net.cut();
    await until(async () => (await status()) === "waiting");
    await publish(1);
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
    await until(async () => (await had()).length === 1);
    assert.deepEqual(await had(), [1]);
  });
});
