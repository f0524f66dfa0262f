// A line chart over uPlot: series of different x, points with intervals, and the colours of the page.
import { html, useEffect, useRef } from "./vendor/preact-htm.js";

export const COLOURS = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5"];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function aligned(series) {
  const xs = [...new Set(series.flatMap((one) => one.x))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, i) => [x, i]));
  const column = (one, values) => {
    const found = new Array(xs.length).fill(null);
    one.x.forEach((x, i) => { found[at.get(x)] = values[i]; });
    return found;
  };
  return [xs, ...series.map((one) => column(one, one.y))];
}

function intervals(series) {
  return (plot) => {
    const { ctx } = plot;
    ctx.save();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    series.forEach((one, i) => {
      if (!one.low || !plot.series[i + 1].show) return;
      ctx.strokeStyle = plot.series[i + 1].stroke();
      one.x.forEach((x, k) => {
        if (one.low[k] === null || one.high[k] === null) return;
        const px = plot.valToPos(x, "x", true);
        ctx.beginPath();
        ctx.moveTo(px, plot.valToPos(one.low[k], "y", true));
        ctx.lineTo(px, plot.valToPos(one.high[k], "y", true));
        ctx.stroke();
      });
    });
    ctx.restore();
  };
}

function options(series, width, height, xLabel) {
  const axis = { stroke: () => colour("--dim"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const bounds = series.flatMap((one) => [...one.y, ...(one.low || []), ...(one.high || [])]).filter((y) => y !== null);
  const [low, high] = [Math.min(...bounds), Math.max(...bounds)];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return {
    width,
    height,
    legend: { live: true, markers: { width: 0, fill: (plot, i) => plot.series[i].stroke() } },
    padding: [10, 14, 0, 0],
    cursor: { points: { size: 6 }, y: false },
    scales: { x: { time: false }, y: { range: () => [low - pad, high + pad] } },
    axes: [{ ...axis, size: 32, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en")) }, { ...axis, size: 56 }],
    hooks: { draw: [intervals(series)] },
    series: [
      { label: xLabel, value: (_, x) => (x === null ? "" : x.toLocaleString("en")) },
      ...series.map((one, i) => ({
        label: one.label,
        stroke: () => colour(one.colour || COLOURS[i % COLOURS.length]),
        width: one.points ? 0 : 2,
        paths: one.points ? () => null : undefined,
        spanGaps: true,
        points: one.points ? { show: true, size: 7, fill: () => colour(one.colour || COLOURS[i % COLOURS.length]) } : { show: one.x.length < 3 },
        value: (_, y) => (y === null ? "" : Number(y.toPrecision(4)).toString()),
      })),
    ],
  };
}

function spoken(title, series) {
  const parts = series.map((one) => {
    const [first, last] = [one.y[0], one.y[one.y.length - 1]].map((y) => Number(y.toPrecision(3)));
    return `${one.label} from ${first} to ${last}`;
  });
  return `${title}: ${parts.join(", ")}`;
}

export function Chart({ title, series, height = 220, xLabel = "episodes", level = 3 }) {
  const box = useRef(null);
  const known = series.filter((one) => one.x.length);
  const key = JSON.stringify(known);
  useEffect(() => {
    if (!known.length) return undefined;
    let plot = null;
    const draw = () => {
      plot?.destroy();
      plot = new uPlot(options(known, box.current.clientWidth, height, xLabel), aligned(known), box.current);
      // The figure's label says what the chart shows; its legend is for the pointer.
      plot.root.setAttribute("aria-hidden", "true");
    };
    draw();
    const sizes = new ResizeObserver(() => plot.setSize({ width: box.current.clientWidth, height }));
    sizes.observe(box.current);
    addEventListener("theme", draw);
    return () => {
      sizes.disconnect();
      removeEventListener("theme", draw);
      plot.destroy();
    };
  }, [key, height]);
  const Heading = `h${level}`;
  return html`<section class="card chart">
    <${Heading}>${title}<//>
    ${known.length
      ? html`<div role="img" aria-label=${spoken(title, known)} ref=${box} class="plot" data-height=${height}></div>`
      : html`<p class="dim">No value yet.</p>`}
  </section>`;
}
