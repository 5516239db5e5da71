// Pictures of every page, taken from a demo that runs; the README shows them.

import { mkdir } from "node:fs/promises";
import { ask, browser as launch, connected, demo as start, root, until, visit } from "./support.mjs";

const places = ["task", "tasks", "messages", "notices", "sources", "settings", "overview"];
const folder = `${root}docs/images`;
await mkdir(folder, { recursive: true });
const [browser, demo] = await Promise.all([launch(), start({ still: false })]);
try {
  for (const colorScheme of ["light", "dark"]) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme, locale: "en", reducedMotion: "reduce" });
    const page = await context.newPage();
    await page.goto(`${demo.front}/?user=ada`);
    await connected(page);
    // A task that is well under way, and will be for a while.
    const task = await until(async () => {
      const { tasks } = await ask(`${demo.front}/v1/tasks?limit=100`);
      return tasks.find(({ action, progress, status }) => action === "rotate-keys" && status === "running" && progress > 30 && progress < 65);
    }, 240_000);
    for (const name of places) {
      // The one page of which less than half fits.
      await page.setViewportSize({ width: 1280, height: name === "sources" ? 1240 : 860 });
      await visit(page, name === "task" ? `#/tasks/${task.id}` : `#/${name}`);
      await page.waitForFunction(() => !document.querySelector("main .wait"));
      // Lines need some points to be seen.
      const settle = { overview: 40_000, sources: 16_000, tasks: 4_000, notices: 2_500 }[name] ?? 2_000;
      await page.waitForTimeout(settle);
      await page.waitForFunction(() => !document.querySelector(".toast"));
      await page.screenshot({ path: `${folder}/${name}-${colorScheme}.png` });
    }
    await context.close();
  }
  const context = await browser.newContext({ viewport: { width: 375, height: 760 }, colorScheme: "dark", locale: "zh-CN", reducedMotion: "reduce", deviceScaleFactor: 2 });
  const page = await context.newPage();
  await page.goto(`${demo.front}/?user=ada#/tasks`);
  await connected(page);
  await page.waitForTimeout(4_000);
  await page.screenshot({ path: `${folder}/telephone.png` });
} finally {
  await browser.close();
  await demo.end();
}
