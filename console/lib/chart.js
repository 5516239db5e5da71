// uPlot in the colours of the page.
import uPlot from "/console/vendor/uPlot.esm.js";
import { mark, moment } from "/console/lib/words.js";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Points without a neighbour: no line leads to them, and they would not be seen. */
function alone(plot, at) {
  const values = plot.data[at];
  const none = (n) => values[n] === null || values[n] === undefined;
  return values.flatMap((_, n) => (!none(n) && none(n - 1) && none(n + 1) ? [n] : []));
}

/**
 * A chart over time that fits its place and follows the theme.
 * @param {{series: {label: string, colour: string, fill?: boolean}[], height?: number, value?: (v: number) => string, label: string}} what
 */
export function chart({ series, height = 210, value = (v) => String(v), label }) {
  const place = document.createElement("div");
  place.className = "chart";
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  let plot;
  let labels = [];
  let data = [[], ...series.map(() => [])];
  const draw = () => {
    if (!place.isConnected || place.clientWidth === 0) return;
    plot?.destroy();
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    plot = new uPlot(
      {
        width: place.clientWidth,
        height,
        cursor: { points: { size: 6 }, drag: { x: false, y: false } },
        legend: { live: true },
        scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 1, 1) * 1.12] } },
        axes: [
          { ...axis, size: 30, values: (_, splits) => splits.map((at) => mark(at * 1000, splits[1] - splits[0])) },
          { ...axis, size: 54, values: (_, splits) => splits.map((v) => value(v)) },
        ],
        series: [
          { value: (_, at) => (at ? moment(at * 1000) : "–") },
          ...series.map((one, n) => ({ label: labels[n] ?? one.label, stroke: colour(one.colour), width: 2, fill: one.fill ? `color-mix(in srgb, ${colour(one.colour)} 14%, transparent)` : undefined, points: { show: true, size: 5, filter: alone }, spanGaps: false, value: (_, v) => (v === null || v === undefined ? "–" : value(v)) })),
        ],
      },
      data,
      place,
    );
  };
  const sizes = new ResizeObserver(() => {
    if (plot && plot.width !== place.clientWidth && place.clientWidth) plot.setSize({ width: place.clientWidth, height });
    else if (!plot) draw();
  });
  sizes.observe(place);
  const themes = new MutationObserver(draw);
  themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  return {
    element: place,
    /** `labels` name the lines anew, `about` is what is read aloud. */
    show(next, told = {}) {
      const named = (told.labels ?? []).some((name, n) => name !== labels[n]);
      labels = told.labels ?? labels;
      if (told.about) place.setAttribute("aria-label", told.about);
      data = next;
      if (plot && !named) plot.setData(data);
      else draw();
    },
    get points() {
      return data[0].length;
    },
    end() {
      sizes.disconnect();
      themes.disconnect();
      plot?.destroy();
    },
  };
}
