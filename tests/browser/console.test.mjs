// The console in a real browser, over three replicas that are killed.

import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { ask, browser as launch, connected, demo as start, open, submit, until, violations, visit } from "./support.mjs";

const PAGES = ["overview", "tasks", "messages", "notices", "sources", "settings"];
let browser;
let demo;

before(async () => ([browser, demo] = await Promise.all([launch(), start()])));
after(async () => {
  await browser?.close();
  await demo?.end();
});

const percent = async (page) => parseFloat(await page.textContent("[data-test=percent]"));

suite("the console", () => {
  test("a bar arrives at 100 % though the replica that one looks at is killed", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada`, { loses: true });
    const here = await connected(page);
    const session = await page.getAttribute("[data-test=connection]", "data-session");
    const { pid } = demo.replicas.get(here);
    const task = await submit(demo.other(here).url, { count: 100, delay: 300 });
    await visit(page, `#/tasks/${task.id}`);
    await until(async () => (await percent(page)) > 5);
    await visit(page, "#/overview");
    await page.click(`[data-kill="${here}"]`);
    await visit(page, `#/tasks/${task.id}`);
    const seen = [];
    await until(async () => {
      seen.push(await percent(page).catch(() => 0));
      return seen.at(-1) === 100;
    });
    const shown = seen.filter((value) => value > 0);
    assert.deepEqual(shown, [...shown].sort((a, b) => a - b), "it never goes back");
    await connected(page);
    assert.notEqual(await page.getAttribute("[data-test=connection]", "data-session"), session, "it lost its connection");
    assert.match(await page.textContent("h1"), /completed/);
    await until(() => demo.replicas.get(here).pid !== pid);
    await end();
  });

  test("a page that is loaded again in the middle goes on where the task is", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada`);
    await connected(page);
    const task = await submit(demo.front, { count: 80, delay: 250 });
    await visit(page, `#/tasks/${task.id}`);
    const at = await until(async () => (await percent(page)) > 20 && percent(page));
    await page.reload();
    await page.waitForSelector("[data-test=percent]");
    assert.ok((await percent(page)) >= at);
    await until(async () => (await percent(page)) === 100);
    await end();
  });

  test("a task is started, paused, resumed, cancelled and tried again from the page", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/tasks`);
    await connected(page);
    await page.click("[data-test=new-task]");
    await page.getByLabel("Action", { exact: true }).fill("from-the-page");
    await page.getByLabel("Milliseconds each").fill("400");
    await page.click("dialog button[type=submit]");
    await page.waitForURL(/#\/tasks\/.+/);
    const status = () => page.textContent("h1 .pill");
    await until(async () => (await status()) === "running");
    for (const [wish, becomes] of [["Pause", "paused"], ["Resume", "running"], ["Cancel", "cancelled"], ["Retry", "running"], ["Cancel", "cancelled"]]) {
      await page.getByRole("button", { name: new RegExp(`^${wish}`) }).click();
      await until(async () => (await status()) === becomes);
    }
    await end();
  });

  test("fifty running tasks move, and the page stays smooth", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/tasks`);
    await connected(page);
    await Promise.all(Array.from({ length: 50 }, (_, n) => submit(demo.front, { action: `many-${n}`, count: 60, delay: 400, concurrency: 2 })));
    await until(async () => (await page.locator("[data-task] .pill.tide").count()) >= 30);
    // Processor time of the page's own thread: what else the machine does is not the page's fault.
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
    const spent = async () => (await devtools.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration").value;
    const bars = () => page.locator("[data-task] [role=progressbar]").evaluateAll((all) => all.map((bar) => bar.ariaValueNow));
    const [before, was, began] = [await spent(), await bars(), Date.now()];
    await until(async () => (await bars()).filter((now, at) => now !== was[at]).length >= 30);
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    const share = (await spent() - before) / ((Date.now() - began) / 1000);
    assert.ok(share < 0.5, `it is busy for ${Math.round(share * 100)} % of the time`);
    const { tasks } = await ask(`${demo.front}/v1/tasks?limit=100`);
    await Promise.all(tasks.filter(({ finished_at }) => !finished_at).map(({ id }) => ask(`${demo.front}/v1/tasks/${id}/cancel`, "POST")));
    await end();
  });

  test("what is published in one tab is seen in another, and its durability is the server's word", async () => {
    const [one, other] = await Promise.all(["ada", "grace"].map((user) => open(browser, `${demo.front}/?user=${user}#/messages`)));
    await Promise.all([connected(one.page), connected(other.page)]);
    await until(async () => /Follows one/.test(await other.page.textContent("[data-test=following]")));
    await one.page.getByLabel("Topic", { exact: true }).first().fill("parcel:1");
    await one.page.getByLabel("Data, as JSON").fill('{"said":"from a page"}');
    await one.page.getByRole("button", { name: "Publish" }).click();
    await other.page.getByText("from a page").first().waitFor();
    assert.match(await one.page.textContent("[data-test=published]"), /Durable as number/);
    await one.page.getByLabel("Data, as JSON").fill("{");
    await one.page.getByRole("button", { name: "Publish" }).click();
    assert.match(await one.page.textContent("[data-test=published]"), /no JSON/);
    await one.page.getByRole("button", { name: "Look back" }).click();
    await one.page.getByText("messages were found").waitFor();
    await Promise.all([one.end(), other.end()]);
  });

  test("charts draw", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/overview`);
    await connected(page);
    await until(async () => (await page.locator("[data-replica].card").count()) === 3);
    const painted = () => page.evaluate(() => {
      const canvas = document.querySelector(".uplot canvas");
      if (!canvas) return 0;
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let count = 0;
      for (let at = 3; at < pixels.length; at += 4) count += pixels[at] > 0;
      return count;
    });
    await until(async () => (await painted()) > 500);
    await until(async () => (await page.textContent(".tiles")).includes("ms"));
    await end();
  });

  test("the bells of two tabs agree, and a notice waits for who is away", async () => {
    const send = (title) => ask(`${demo.front}/v1/notices`, "POST", { target: { users: ["bell"] }, title, confirm: true });
    await send("While you were away");
    const [one, other] = await Promise.all([1, 2].map(() => open(browser, `${demo.front}/?user=bell`)));
    const unread = async ({ page }) => ((await page.isVisible("[data-test=unread]")) ? Number(await page.textContent("[data-test=unread]")) : 0);
    const both = (count) => until(async () => (await unread(one)) === count && (await unread(other)) === count);
    await both(1);
    await send("While you look");
    await both(2);
    await one.page.getByRole("button", { name: /Notices, 2 unread/ }).click();
    await one.page.getByRole("button", { name: "Mark as read" }).first().click();
    await both(1);
    await other.page.getByRole("button", { name: /Notices, 1 unread/ }).click();
    await other.page.getByRole("button", { name: "Mark all as read" }).click();
    await both(0);
    await Promise.all([one.end(), other.end()]);
  });

  test("receipts of a notice fill up while one looks", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada#/notices`);
    await connected(page);
    await page.getByLabel("To", { exact: true }).selectOption("users");
    await page.getByLabel("Names, with commas").fill("reader, absent");
    await page.getByLabel("Title").fill("Receipts");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await until(async () => /2 recipients/.test((await page.textContent("[data-test=notice-sent]")) ?? ""));
    const row = page.locator("[data-notice]", { hasText: "Receipts" }).first();
    const count = async (at) => row.locator(".funnel b").nth(at).textContent();
    await until(async () => (await count(0)) === "2");
    await ask(`${demo.front}/v1/inbox/read?user=reader`, "POST", { all: true });
    await until(async () => (await count(0)) === "1" && (await count(3)) === "1");
    await end();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`everybody can use every page, ${colorScheme}`, async () => {
      const { page, end } = await open(browser, `${demo.front}/?user=ada`, { colorScheme, reducedMotion: "reduce" });
      await connected(page);
      const task = await submit(demo.front, { count: 10, delay: 10, fail_rate: 0.3 });
      for (const hash of [...PAGES.map((name) => `#/${name}`), `#/tasks/${task.id}`]) {
        await visit(page, hash);
        await page.waitForFunction(() => !document.querySelector("main .wait"));
        assert.deepEqual(await violations(page), [], hash);
      }
      await visit(page, "#/tasks");
      await page.click("[data-test=new-task]");
      assert.deepEqual(await violations(page), [], "the dialog");
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => !document.querySelector("dialog"));
      await end();
    });
  }

  test("nothing is wider than a telephone", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada`, { viewport: { width: 375, height: 740 }, hasTouch: true });
    await connected(page);
    for (const name of PAGES) {
      await visit(page, `#/${name}`);
      await page.waitForFunction(() => !document.querySelector("main .wait"));
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 375, name);
    }
    await end();
  });

  test("it is used without a mouse", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada`);
    await connected(page);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    await page.locator("nav a", { hasText: "Settings" }).focus();
    await page.keyboard.press("Enter");
    await page.getByText("drain_s", { exact: true }).waitFor();
    await page.getByRole("button", { name: /^Notices/ }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /^Notices/);
    await end();
  });

  test("it speaks Chinese where the reader does, and keeps what was chosen", async () => {
    const { page, end } = await open(browser, `${demo.front}/?user=ada`, { locale: "zh-CN" });
    await connected(page);
    assert.equal(await page.textContent("h1"), "总览");
    assert.equal(await page.getAttribute("html", "lang"), "zh-CN");
    await page.getByRole("button", { name: /ada/ }).click();
    await page.getByRole("button", { name: "English" }).click();
    await page.reload();
    await connected(page);
    assert.equal(await page.textContent("h1"), "Overview");
    await end();
  });

  test("where WebSockets are blocked it receives by an event stream", async () => {
    const context = await browser.newContext();
    await context.addInitScript(() => {
      globalThis.WebSocket = class {
        constructor() {
          queueMicrotask(() => this.onclose({ code: 1006, reason: "" }));
        }
        close() {}
      };
    });
    const page = await context.newPage();
    await page.goto(`${demo.front}/?user=ada#/messages`);
    await connected(page);
    assert.match(await page.textContent("[data-test=connection]"), /event stream/);
    await ask(`${demo.front}/v1/messages`, "POST", { topic: "order:1", data: "over a stream" });
    await page.getByText("over a stream").first().waitFor();
    await context.close();
  });
});
