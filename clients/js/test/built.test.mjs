import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const file = (path) => readFile(new URL(path, import.meta.url), "utf8");

test("the console has the client as it is", async () => {
  const [own, console] = await Promise.all([file("../dist/tidings.js"), file("../../../console/vendor/tidings.js")]);
  assert.ok(own === console, "console/vendor/tidings.js is an older one: run `make client`");
});

test("the lock files name no registry", async () => {
  for (const path of ["../package-lock.json", "../../../tests/browser/package-lock.json"]) {
    assert.doesNotMatch(await file(path), /"resolved"/, path);
  }
});
