// All runs of the folder: a chart of their returns and a table; live ones update.
import { html, useState } from "./vendor/preact-htm.js";
import { Chart, COLOURS } from "./chart.js";
import { POLL_MS, Problem, State, Waiting, address, count, figure, go, percent, seconds, useData, useKeys } from "./lib.js";

const SHOWN = 6;

function Progress({ run }) {
  if (!run.cycles) return html`<span>${count(run.cycle)}</span>`;
  return html`<span class="progress"><progress max=${run.cycles} value=${Math.min(run.cycle, run.cycles)} aria-label=${`cycles of ${run.name}`}></progress> ${run.cycle}/${run.cycles}</span>`;
}

function Returns({ runs, shown }) {
  const series = runs.filter((run) => shown.has(run.key)).flatMap((run) => {
    const colour = COLOURS[runs.indexOf(run) % COLOURS.length];
    return run.series.filter((one) => one.x.length).map((one) => ({ ...one, colour, label: `${run.name} ${one.label}` }));
  });
  return html`<${Chart} title="Return" series=${series} height=${280} level=${2}/>`;
}

export function Runs() {
  const [content, error] = useData("runs", {}, POLL_MS);
  const [hidden, setHidden] = useState(new Set());
  const [marked, setMarked] = useState(0);
  const runs = content ? content.runs : [];
  useKeys({
    j: () => setMarked(Math.min(marked + 1, runs.length - 1)),
    k: () => setMarked(Math.max(marked - 1, 0)),
    Enter: () => runs[marked] && go("run", { run: runs[marked].key }),
  });
  if (error && !content) return html`<h1>Runs</h1><${Problem} error=${error}/>`;
  if (!content) return html`<${Waiting} what="runs"/>`;
  const shown = new Set(runs.filter((run, i) => (i < SHOWN) !== hidden.has(run.key)).map((run) => run.key));
  const toggle = (key) => {
    const next = new Set(hidden);
    if (!next.delete(key)) next.add(key);
    setHidden(next);
  };
  return html`
    <div class="title"><h1>Runs</h1><p class="dim">${content.root}</p></div>
    ${error && html`<${Problem} error=${error}/>`}
    ${content.waiting > 0 && html`<p class="note" role="status">Reading episodes: ${count(content.waiting)} files to go.</p>`}
    ${content.problems.map((problem) => html`<p class="problem">${problem}</p>`)}
    ${!runs.length && html`<p class="note">There are no runs in this folder yet. <code>archer demo</code> makes one.</p>`}
    ${runs.length > 0 && html`<${Returns} runs=${runs} shown=${shown}/>
    <div class="scroll card" tabindex="0" role="region" aria-label="Table of runs">
      <table class="wide">
        <thead><tr><th scope="col">Chart</th><th scope="col">Run</th><th scope="col">State</th><th scope="col">Task</th><th scope="col">Method</th><th scope="col">Cycles</th>
          <th scope="col" class="num">Episodes</th><th scope="col" class="num">Return</th><th scope="col" class="num">Evaluation</th><th scope="col" class="num">Success</th><th scope="col" class="num">Time</th><th scope="col" class="num">Kept</th></tr></thead>
        <tbody>${runs.map((run, i) => html`<tr class=${i === marked ? "marked" : ""} key=${run.key}>
          <td><input type="checkbox" class=${`swatch c${i % COLOURS.length}`} checked=${shown.has(run.key)} onChange=${() => toggle(run.key)} aria-label=${`show ${run.name} in the chart`}/></td>
          <th scope="row"><a href=${address("run", { run: run.key })}>${run.name}</a>${run.problems.map((problem) => html`<div class="small bad">${problem}</div>`)}</th>
          <td><${State} state=${run.state}/></td><td>${run.env || "–"}</td><td>${run.algorithm || "–"}</td><td><${Progress} run=${run}/></td>
          <td class="num">${count(run.episodes)}</td><td class="num">${figure(run.return)}</td>
          <td class="num">${figure(run.evaluated)}${run.evaluated_low !== null && html`<div class="small dim">${figure(run.evaluated_low)} to ${figure(run.evaluated_high)}</div>`}</td>
          <td class="num">${percent(run.evaluated_success ?? run.success)}</td><td class="num">${seconds(run.wall_seconds)}</td>
          <td class="num"><a href=${address("episodes", { run: run.key })} aria-label=${`${count(run.held)} episodes of ${run.name}`}>${count(run.held)}</a></td>
        </tr>`)}</tbody>
      </table>
    </div>`}`;
}
