// The console of one replica: with tokens, without a server, and a page of somebody else.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { guarded, replica, token } from "../../clients/js/test/harness.mjs";
import { browser as launch, connected, open, root, submit, until, visit } from "./support.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser?.close());

suite("the console of one replica", () => {
  test("a wrong token is refused in words, a right one lets in, and a reload keeps it", async (t) => {
    const { url } = await guarded(t);
    const { page, context } = await open(browser, url);
    await page.getByLabel("Token").fill("none of ours");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").filter({ hasText: "token" }).waitFor();
    await page.getByLabel("Token").fill("the-key-of-the-tests");
    await page.getByRole("button", { name: "Sign in" }).click();
    await connected(page);
    await page.reload();
    await connected(page);
    assert.equal(await page.locator("nav a").count(), 6);
    assert.equal(await page.evaluate(() => localStorage.getItem("tidings.token")), null);
    await context.close();
  });

  test("who is no admin sees what is his, and is refused nothing", async (t) => {
    const { url } = await guarded(t);
    const mine = await token("--sub", "7", "--topics", "order:*");
    const { page, end } = await open(browser, url);
    await page.getByLabel("Token").fill(mine);
    await page.getByRole("button", { name: "Sign in" }).click();
    await connected(page);
    assert.deepEqual(await page.locator("nav a").allTextContents(), ["Tasks", "Messages"]);
    await visit(page, "#/messages");
    await page.getByLabel("Topic to follow").fill("order:*");
    await page.getByRole("button", { name: "Follow" }).click();
    await page.getByRole("button", { name: "Publish" }).click();
    await page.getByText("Durable as number").waitFor();
    await page.locator(".feed .topic", { hasText: "order:7" }).waitFor();
    await end();
  });

  test("a server that is gone is said at once, nothing is claimed, and the page comes back by itself", async (t) => {
    const first = await replica(t);
    const { page, end } = await open(browser, `${first.url}/?user=ada#/messages`, { loses: true });
    await connected(page);
    first.child.kill("SIGKILL");
    await first.ended;
    await page.getByText("The connection was lost").waitFor();
    await page.getByRole("button", { name: "Publish" }).click();
    await until(async () => (await page.getAttribute("button[aria-busy]", "aria-busy")) === "true");
    assert.equal(await page.isVisible("[data-test=published]"), false);
    await replica(t, { port: first.port });
    await connected(page);
    await until(async () => /Durable as number/.test(await page.textContent("[data-test=published]")));
    await end();
  });

  test("a page outside of the console shows a bar with the client alone", async (t) => {
    const pages = createServer(async (request, response) => {
      const path = new URL(request.url, "http://x").pathname;
      const file = await readFile(root + path.slice(1)).catch(() => null);
      response.writeHead(file ? 200 : 404, { "content-type": path.endsWith(".js") ? "text/javascript" : "text/html" });
      response.end(file);
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => pages.once("listening", resolve));
    t.after(() => pages.close());
    const origin = `http://127.0.0.1:${pages.address().port}`;
    const { url } = await replica(t, { env: { TIDINGS_ALLOWED_ORIGINS: origin } });
    const task = await submit(url, { count: 40, delay: 50 });
    const page = await browser.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(`${origin}/examples/progress.html?server=${encodeURIComponent(url)}&task=${task.id}`);
    await page.waitForFunction(() => document.querySelector("progress").value === 100);
    assert.match(await page.textContent("output"), /completed/);
    assert.deepEqual(errors, []);
    await page.close();
  });
});
