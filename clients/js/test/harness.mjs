// Real replicas: the binary that `cargo build` made, or the one that TIDINGS_BIN names.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const binary = process.env.TIDINGS_BIN ?? fileURLToPath(new URL("../../../target/debug/tidings", import.meta.url));
if (!existsSync(binary)) throw new Error(`${binary} is not there: run \`cargo build\` first, or set TIDINGS_BIN`);

export const SECRET = "a secret of thirty-two bytes, at least";

const clean = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(TIDINGS_|PG|DATABASE_URL|LISTEN_DATABASE_URL|https?_proxy$)/i.test(name)),
);

export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A replica in memory, which ends with the test. */
export async function replica(test, { port, env = {}, dev = true } = {}) {
  port ??= await freePort();
  const args = ["serve", "--leave-with-stdin", ...(dev ? ["--dev"] : [])];
  const child = spawn(binary, args, {
    env: { ...clean, TIDINGS_LISTEN: `127.0.0.1:${port}`, TIDINGS_DRAIN_S: "1", ...env },
    stdio: ["pipe", "ignore", "pipe"],
  });
  const said = [];
  createInterface({ input: child.stderr }).on("line", (line) => said.push(line));
  const ended = once(child, "exit");
  test.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  const url = `http://127.0.0.1:${port}`;
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`the replica ended: ${said.join("\n")}`);
    return (await fetch(`${url}/readyz`).catch(() => undefined))?.ok;
  });
  return { url, port, child, ended };
}

/** A replica that wants tokens. */
export function guarded(test, options = {}) {
  return replica(test, { ...options, dev: false, env: { TIDINGS_JWT_SECRET: SECRET, TIDINGS_API_KEYS: "the-key-of-the-tests", ...options.env } });
}

export async function token(...args) {
  const child = spawn(binary, ["token", ...args], { env: { ...clean, TIDINGS_JWT_SECRET: SECRET }, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  for await (const piece of child.stdout) text += piece;
  return text.trim();
}

/** Three replicas over one Postgres, which come back when they are killed. */
export async function demo(test) {
  const env = { ...clean };
  if (process.env.DATABASE_URL) env.DATABASE_URL = process.env.DATABASE_URL;
  const child = spawn(binary, ["demo", "--still"], { env, stdio: ["ignore", "pipe", "ignore"] });
  const ended = once(child, "exit");
  test.after(async () => {
    child.kill("SIGINT");
    await ended;
  });
  const replicas = new Map();
  let ready;
  const whole = new Promise((resolve, reject) => {
    ready = resolve;
    ended.then(() => reject(new Error("the demo ended before it was ready")));
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    const found = /^\s*(replica-\d)\s+(?:is back at )?(http:\S+)\s+\(process (\d+)\)/.exec(line);
    if (found) replicas.set(found[1], { name: found[1], url: found[2], pid: Number(found[3]) });
    if (line.startsWith("Ready.")) ready();
  });
  await whole;
  return {
    urls: [...replicas.values()].map(({ url }) => url),
    kill: (name, signal = "SIGKILL") => process.kill(replicas.get(name).pid, signal),
    replicas,
  };
}

/** Waits for a state that shows. */
export async function until(holds, withinMs = 30_000) {
  const end = Date.now() + withinMs;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > end) throw new Error(`it did not happen within ${withinMs} ms: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function post(url, messages) {
  const response = await fetch(`${url}/v1/messages`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ messages }) });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()).messages;
}

/** A network between a client and a server that can go silent, or be cut. */
export async function proxy(test, port) {
  const sockets = new Set();
  let silent = false;
  const server = net.createServer((near) => {
    const far = net.connect(port, "127.0.0.1");
    sockets.add(near).add(far);
    const pass = (from, to) => {
      from.on("data", (data) => silent || to.write(data));
      from.on("close", () => to.destroy());
      from.on("error", () => {});
    };
    pass(near, far);
    pass(far, near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => sockets.forEach((socket) => socket.destroy());
  test.after(() => (cut(), server.close()));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut,
    silence: (is) => (silent = is),
  };
}
