// What may be wished of a task; what became of it is what the server answers and tells.
import { me } from "/console/lib/connection.js";
import { action } from "/console/lib/parts.js";
import { fill } from "/console/lib/dom.js";
import { ENDED } from "/console/lib/newest.js";
import { t } from "/console/lib/words.js";

const WISHES = {
  pending: ["pause", "cancel"],
  running: ["pause", "cancel"],
  paused: ["resume", "cancel"],
};

export function wishes(answered) {
  const place = document.createElement("div");
  place.className = "do";
  let shown = "";
  return {
    element: place,
    show(task) {
      const names = ENDED.includes(task.status) ? (task.failed + task.cancelled > 0 || task.current < task.total ? ["retry"] : []) : WISHES[task.status] ?? [];
      if (names.join() === shown) return;
      shown = names.join();
      fill(place, names.map((name) => action(t(`wish.${name}`), async () => answered(await me.tidings.tasks[name](task.id)), { small: true, danger: name === "cancel", "aria-label": `${t(`wish.${name}`)}: ${task.action}` })));
    },
  };
}
