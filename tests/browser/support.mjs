// A demo, a browser, and what every page must never do.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import axe from "axe-core";

export const root = fileURLToPath(new URL("../../", import.meta.url));
export const binary = process.env.TIDINGS_BIN ?? `${root}target/debug/tidings`;
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const clean = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(TIDINGS_|PG|LISTEN_DATABASE_URL|https?_proxy$)/i.test(name)),
);

export function browser() {
  const executablePath = process.env.CHROMIUM ?? BROWSERS.find((path) => existsSync(path));
  return chromium.launch({ executablePath, args: ARGUMENTS });
}

/** Three replicas, one address, and how to see and end them. */
export async function demo({ still = true } = {}) {
  const child = spawn(binary, still ? ["demo", "--still"] : ["demo"], { env: clean, stdio: ["ignore", "pipe", "ignore"] });
  const ended = once(child, "exit");
  const replicas = new Map();
  let front;
  let edge;
  await new Promise((resolve, reject) => {
    ended.then(() => reject(new Error("the demo ended before it was ready")));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = /^\s*(replica-\d|all)\s+(?:is back at )?(http:\S+)(?:\s+\(process (\d+)\))?/.exec(line);
      if (found?.[1] === "all") front = found[2];
      else if (found) replicas.set(found[1], { name: found[1], url: found[2], pid: Number(found[3]) });
      edge = /^\s*curl -N (http:\S+\/events)$/.exec(line)?.[1] ?? edge;
      if (line.startsWith("Ready.")) resolve();
    });
  });
  return {
    front,
    /** A stream of telemetry that a source may read. */
    edge,
    replicas,
    other: (name) => [...replicas.values()].find((one) => one.name !== name),
    end: async () => {
      child.kill("SIGINT");
      await ended;
    },
  };
}

export async function ask(url, method = "GET", body) {
  const response = await fetch(url, { method, ...(body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }) });
  const answer = await response.json().catch(() => ({}));
  assert.ok(response.ok, `${method} ${url}: ${response.status} ${JSON.stringify(answer)}`);
  return answer;
}

export function submit(url, { count = 60, delay = 200, concurrency = 5, action = "cordon", fail_rate = 0, owner = "ada" } = {}) {
  const items = Array.from({ length: count }, (_, n) => `node-${n + 1}`);
  return ask(`${url}/v1/tasks`, "POST", { action, owner, items, concurrency, executor: { type: "simulate", delay_ms: delay, fail_rate, seed: 5 } });
}

/**
 * A page whose complaints fail the test. What is lost on purpose is allowed by `loses`, and what the server is to refuse
 * by `refused`.
 */
export async function open(browser, url, { loses = false, refused = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, locale: "en", ...options });
  const page = await context.newPage();
  const complaints = [];
  const origin = new URL(url).origin;
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    const text = message.text();
    if (refused && /status of 4\d\d/.test(text)) return;
    if (loses && /ERR_CONNECTION|ERR_FAILED|ERR_INTERNET_DISCONNECTED|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE|WebSocket connection|status of 503|tidings:/.test(text)) return;
    complaints.push(`${text} (${message.location().url})`);
  });
  page.on("pageerror", (error) => complaints.push(error.stack ?? String(error)));
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (/^(http|ws)/.test(to.protocol) && to.host !== new URL(origin).host) complaints.push(`it asked ${to.host}`);
  });
  await page.goto(url);
  return {
    page,
    context,
    end: async () => {
      await context.close();
      assert.deepEqual(complaints, []);
    },
  };
}

export async function connected(page) {
  await page.waitForSelector('[data-test=connection][data-status="open"]');
  return page.getAttribute("[data-test=connection]", "data-replica");
}

export async function visit(page, hash) {
  await page.evaluate((to) => (location.hash = to), hash);
}

/** Violations, one a line. */
export async function violations(page) {
  // The page's own policy would not let it in by a tag.
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 140)} ${node.failureSummary?.split("\n")[1] ?? ""}`));
}

export async function until(holds, withinMs = 60_000) {
  const end = Date.now() + withinMs;
  for (;;) {
    const value = await holds();
    if (value) return value;
    assert.ok(Date.now() < end, `it did not happen within ${withinMs} ms: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
