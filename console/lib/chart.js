// uPlot in the colours of the page.
import uPlot from "/console/vendor/uPlot.esm.js";
import { language } from "/console/lib/words.js";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
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
          { ...axis, values: (_, splits) => splits.map((at) => new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", ...(splits[1] - splits[0] < 60 && { second: "2-digit" }), hourCycle: "h23" }).format(at * 1000)) },
          { ...axis, size: 54, values: (_, splits) => splits.map((v) => value(v)) },
        ],
        series: [
          { value: (_, at) => (at ? new Date(at * 1000).toLocaleTimeString(language) : "–") },
          ...series.map((one) => ({ label: one.label, stroke: colour(one.colour), width: 2, fill: one.fill ? `color-mix(in srgb, ${colour(one.colour)} 14%, transparent)` : undefined, points: { show: false }, spanGaps: false, value: (_, v) => (v === null || v === undefined ? "–" : value(v)) })),
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
    show(next) {
      data = next;
      if (plot) plot.setData(data);
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
