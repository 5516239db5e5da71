// Elements in one line each, and the few things that every page does to them.

/**
 * An element: `h("a.button", {href: "#/"}, "text")`. `on…` are listeners; what is null or false is left out.
 * @param {string} what @param {Record<string, any> | null} [props] @param {...any} children
 */
export function h(what, props, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  set(element, props ?? {});
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

export function set(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") element[name] = value;
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

/** Replaces what is inside. */
export function fill(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

/** Writes a text only where it has changed: layout is not asked for nothing. */
export function say(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

const paths = {
  overview: "M3 12l9-8 9 8M6 10v9h12v-9",
  tasks: "M4 6h9M4 12h16M4 18h12M17 4l1.600 1.800L21.500 3",
  messages: "M4 5h16v11H9l-5 4z",
  notices: "M6 16V11a6 6 0 0 1 12 0v5l1.500 2h-15zM10 20.500a2 2 0 0 0 4 0",
  sources: "M4 18l5-6 4 3 7-9M4 21h16",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500v5M9 14.500v5",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2v2.500M12 19.500V22M2 12h2.500M19.500 12H22M5 5l1.700 1.700M17.300 17.300L19 19M5 19l1.700-1.700M17.300 6.700L19 5",
  moon: "M20 14.500A8.500 8.500 0 1 1 9.500 4 7 7 0 0 0 20 14.500z",
  person: "M12 12a4 4 0 1 0 0-8a4 4 0 1 0 0 8M4.500 20.500c1-4 4-6 7.500-6s6.500 2 7.500 6",
  back: "M14 6l-6 6 6 6",
  away: "M3 9c5-4.500 13-4.500 18 0M6 12.500c3.500-3 8.500-3 12 0M9 16c2-1.600 4-1.600 6 0M4 20L20 4",
};

export function icon(name, size = 20) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: size, height: size, fill: "none", stroke: "currentColor", "stroke-width": "1.8", "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" })) svg.setAttribute(key, String(value));
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", paths[name] ?? paths.messages);
  svg.append(path);
  return svg;
}

/** At most once a frame, with the newest. */
export function eachFrame(draw) {
  let asked = 0;
  const once = () => {
    if (!asked) asked = requestAnimationFrame(() => ((asked = 0), draw()));
  };
  once.stop = () => (cancelAnimationFrame(asked), (asked = 0));
  return once;
}

/** Runs now and then every so often while somebody looks; returns how to end it. */
export function every(ms, run) {
  let timer;
  let over = false;
  let runs = false;
  const step = async () => {
    clearTimeout(timer);
    // Whoever looks again while an answer is awaited gets that one.
    if (over || runs || document.visibilityState === "hidden") return;
    runs = true;
    try {
      await run();
    } finally {
      runs = false;
    }
    if (!over) timer = setTimeout(step, ms);
  };
  const seen = () => document.visibilityState === "visible" && step();
  document.addEventListener("visibilitychange", seen);
  void step();
  return () => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  };
}
