// Every word of the console has its Chinese, and none is left over.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { test } from "node:test";
import { root } from "./support.mjs";

test("every word is there in both languages, with the same gaps", async () => {
  const { en } = await import(`${root}console/words/en.js`);
  const { zh } = await import(`${root}console/words/zh.js`);
  const files = (await readdir(`${root}console`, { recursive: true })).filter((name) => name.endsWith(".js") && !/^(vendor|words)/.test(name));
  const used = new Set(Object.keys(en));
  for (const name of files) {
    for (const [, key] of (await readFile(`${root}console/${name}`, "utf8")).matchAll(/\bt\("((?:[^"\\]|\\.)+)"/g)) used.add(key);
  }
  const gaps = (text) => [...text.matchAll(/\{\w+\}/g)].map(([gap]) => gap).sort();
  assert.deepEqual([...used].filter((key) => !(key in zh)), [], "words without Chinese");
  assert.deepEqual(Object.keys(zh).filter((key) => !used.has(key)), [], "Chinese that nobody says");
  for (const key of used) assert.deepEqual(gaps(zh[key]), gaps(en[key] ?? key), key);
});
