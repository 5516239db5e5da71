// Sources of telemetry on the page, over three replicas of which one reads, and is killed.

import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { ask, browser as launch, connected, demo as start, open, until, violations, visit } from "./support.mjs";

let browser;
let demo;

before(async () => ([browser, demo] = await Promise.all([launch(), start()])));
after(async () => {
  await browser?.close();
  await demo?.end();
});

const push = (source, events) => ask(`${demo.front}/v1/ingest`, "POST", { source, events });
const update = (instance, rx, more = {}) => ({ type: "update", instance, gauges: { ping_ms: 12.5 }, counters: { tcp_rx: rx }, ...more });
const make = (name, rules = {}) => ask(`${demo.front}/v1/sources`, "POST", { name, format: "generic", enabled: true, ...rules });
const remove = (name) => fetch(`${demo.front}/v1/sources/${name}`, { method: "DELETE" });
const cell = (page, instance, at) => page.locator(`[data-instance="${instance}"] td`).nth(at).textContent();

/** How many points of the chart have a colour. */
const painted = (page) => page.evaluate(() => {
  const canvas = document.querySelector(".uplot canvas");
  if (!canvas) return 0;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let at = 3; at < pixels.length; at += 4) count += pixels[at] > 0;
  return count;
});

suite("sources", () => {
  test("a server without sources says how to have one, and one is made and removed from the page", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/sources`, { refused: true });
    await connected(page);
    await page.getByText("No sources yet").waitFor();
    await page.getByRole("button", { name: "New source" }).click();
    await page.getByLabel("Name").fill("from-the-page");
    await page.getByLabel("Address of its event stream").fill("http://192.0.2.1/events");
    await page.getByRole("button", { name: "Add", exact: true }).click();
    await page.getByRole("alert").filter({ hasText: "telemetry_hosts" }).waitFor();
    await page.getByLabel("Address of its event stream").fill("");
    await page.getByRole("button", { name: "Add", exact: true }).click();
    await page.getByRole("heading", { name: "from-the-page" }).waitFor();
    await page.getByText("Nothing was heard yet").waitFor();
    await page.getByRole("button", { name: "Switch off" }).click();
    await page.getByText("switched off").waitFor();
    assert.equal((await ask(`${demo.front}/v1/sources/from-the-page`)).enabled, false);
    await page.getByRole("button", { name: "Remove" }).click();
    assert.equal((await ask(`${demo.front}/v1/sources`)).sources.length, 1, "nothing is removed before one has said so twice");
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await page.getByText("No sources yet").waitFor();
    assert.deepEqual((await ask(`${demo.front}/v1/sources`)).sources, []);
    await end();
  });

  test("telemetry that is pushed is shown live, with its trend and its log", async () => {
    await make("pushed");
    await push("pushed", [{ ...update("i-1", 0, { static: { region: "eu" } }), type: "create" }, update("i-1", 1_000)]);
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/sources`, { refused: true });
    await connected(page);
    await page.getByText("eu", { exact: true }).waitFor();
    await push("pushed", [update("i-1", 5_000_000)]);
    await until(async () => (await cell(page, "i-1", 1)) === "5.00 MB");
    await push("pushed", [{ type: "log", instance: "i-1", text: "one that is told at once" }, { ...update("i-2", 7), type: "create" }, { type: "shutdown", instance: "i-1" }]);
    await page.getByText("one that is told at once").waitFor();
    await page.locator('[data-instance="i-2"]').waitFor();
    await until(async () => (await painted(page)) > 500);
    await until(async () => /5\.00 MB altogether/.test(await page.textContent("[data-test=trend]")));
    await page.getByRole("button", { name: "i-2" }).click();
    await page.getByText("tcp_rx · i-2").waitFor();
    await page.getByText("No lines").waitFor();
    await push("pushed", [{ type: "delete", instance: "i-2" }]);
    await page.locator('[data-instance="i-2"]').waitFor({ state: "detached" });
    await remove("pushed");
    await page.getByText("No sources yet").waitFor();
    await end();
  });

  test("counters move on one replica while another one reads, and go on when that is killed", async () => {
    await make("read", { url: demo.edge });
    // A question may go to the replica that is killed.
    const source = () => ask(`${demo.front}/v1/sources/read`).catch(() => ({}));
    const { replica: reader } = await until(async () => ((one) => one.status === "connected" && one)(await source()));
    const { page, end } = await open(browser, `${demo.other(reader).url}/?user=ada#/sources`);
    const here = await connected(page);
    assert.notEqual(here, reader, "it looks at another replica than the one that reads");
    const counted = () => cell(page, "tunnel-31", 2).catch(() => "");
    const session = await page.getAttribute("[data-test=connection]", "data-session");
    const first = await until(counted);
    await until(async () => (await counted()) !== first);
    await until(async () => /B\/s$/.test(await page.locator(".tile .value").nth(1).textContent()));
    await page.getByText(`taken in by ${reader}`).waitFor();
    const { pid } = demo.replicas.get(reader);
    process.kill(pid, "SIGKILL");
    // By then nothing of it is on its way; who reads now is another one, or the same one begun anew.
    await until(() => demo.replicas.get(reader).pid !== pid);
    const seen = [await counted()];
    await until(async () => {
      const now = await counted();
      if (now !== seen.at(-1)) seen.push(now);
      return seen.length > 3;
    });
    const bytes = seen.map((text) => parseFloat(text) * { B: 1, kB: 1e3, MB: 1e6 }[text.split(/\s/)[1]]);
    assert.deepEqual(bytes, [...bytes].sort((a, b) => a - b), "totals never go back");
    assert.equal(await page.getAttribute("[data-test=connection]", "data-session"), session, "its own connection held");
    await end();
    await remove("read");
  });

  test("a page that was away shows how things stand when it is back", async () => {
    await make("away");
    await push("away", [{ ...update("stays", 1_000), type: "create" }, { ...update("goes", 1_000), type: "create" }]);
    const { page, context, end } = await open(browser, `${demo.front}/?user=ada#/sources`, { loses: true });
    const here = await connected(page);
    await page.locator('[data-instance="goes"]').waitFor();
    await context.setOffline(true);
    process.kill(demo.replicas.get(here).pid, "SIGKILL");
    await page.getByText("The connection was lost").waitFor();
    assert.equal(await page.locator("section .pill", { hasText: /^live$/ }).count(), 0, "it does not call live what is old");
    await push("away", [update("stays", 9_000_000), { type: "delete", instance: "goes" }, { ...update("new", 1), type: "create" }]);
    await until(async () => (await ask(`${demo.front}/v1/sources/away/instances`)).instances.some(({ instance }) => instance === "new"));
    await context.setOffline(false);
    await connected(page);
    await page.locator('[data-instance="new"]').waitFor();
    await page.locator('[data-instance="goes"]').waitFor({ state: "detached" });
    await until(async () => /9\.00 MB/.test(await cell(page, "stays", 1)));
    await end();
    await remove("away");
  });

  test("a source is tried from the page, and one that fails says why", async () => {
    await make("good", { url: demo.edge });
    await make("wrong", { url: demo.edge.replace("/events", "/nowhere") });
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/sources`);
    await connected(page);
    await page.getByRole("button", { name: "Test", exact: true }).click();
    await page.getByText(/It answers: \d+ events came/).waitFor();
    await page.getByRole("button", { name: "wrong" }).click();
    await page.locator("section .pill", { hasText: "failing" }).waitFor();
    await page.locator(".told.warn", { hasText: "404" }).waitFor();
    await end();
    await remove("good");
    await remove("wrong");
  });

  test("what the server has not said is not shown", async () => {
    await make("held");
    const { page, context, end } = await open(browser, `${demo.front}/?user=ada#/sources`, { loses: true });
    await connected(page);
    await context.route("**/v1/sources/held*", (route) => (route.request().method() === "GET" ? route.continue() : route.abort()));
    await page.getByRole("button", { name: "Switch off" }).click();
    await page.locator(".toast.bad", { hasText: "cannot be reached" }).waitFor();
    assert.equal(await page.getByText("switched off").count(), 0);
    await page.getByRole("button", { name: "Remove" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await until(async () => (await page.locator(".toast.bad").count()) === 2);
    assert.equal(await page.getByText("Removed.").count(), 0);
    await page.getByRole("button", { name: "Keep it" }).click();
    await page.getByRole("heading", { name: "held" }).waitFor();
    await end();
    await remove("held");
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`everybody can use the page of a source, also with a telephone, ${colorScheme}`, async () => {
      await make("read", { url: demo.edge });
      const { page, end } = await open(browser, `${demo.front}/?user=ada#/sources`, { colorScheme, reducedMotion: "reduce", viewport: { width: 375, height: 740 }, hasTouch: true });
      await connected(page);
      await page.locator("[data-instance]").first().waitFor();
      await page.waitForSelector(".uplot canvas");
      assert.deepEqual(await violations(page), []);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 375);
      // Without a mouse: choose one, and another metric.
      await page.getByRole("button", { name: "tunnel-31" }).focus();
      await page.keyboard.press("Enter");
      await page.getByText("tcp_rx · tunnel-31").waitFor();
      await page.getByRole("button", { name: "ping_ms" }).focus();
      await page.keyboard.press("Enter");
      await page.getByText("ping_ms · tunnel-31").waitFor();
      assert.match(await page.getAttribute(".chart", "aria-label"), /Trend: ping_ms · tunnel-31, 15 minutes/);
      await page.getByRole("button", { name: "Remove" }).focus();
      await page.keyboard.press("Enter");
      assert.deepEqual(await violations(page), [], "the dialog");
      await page.keyboard.press("Escape");
      await end();
      await remove("read");
    });
  }

  test("the page speaks Chinese", async () => {
    await make("read", { url: demo.edge });
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/sources`, { locale: "zh-CN" });
    await connected(page);
    await page.locator("[data-instance]").first().waitFor();
    assert.equal(await page.textContent("h1"), "数据源");
    await until(async () => /合计|没有数据/.test(await page.textContent("[data-test=trend]")));
    const english = await page.evaluate(() => document.querySelector("main").innerText.match(/\b(Instances?|Trend|Seen|Remove|altogether|live)\b/g));
    assert.equal(english, null);
    await end();
    await remove("read");
  });
});
