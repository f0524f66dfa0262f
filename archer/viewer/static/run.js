// One run: its figures, its charts, its evaluations and its configuration.
import { html } from "./vendor/preact-htm.js";
import { Chart } from "./chart.js";
import { POLL_MS, Problem, State, Waiting, address, count, figure, go, percent, seconds, useData, useKeys } from "./lib.js";

const Fact = ({ label, children }) => html`<div><dt>${label}</dt><dd>${children}</dd></div>`;

function Evaluations({ run }) {
  if (!run.evaluations.length) return null;
  return html`<h2>Evaluations</h2><div class="scroll card" tabindex="0" role="region" aria-label="Evaluations"><table>
    <thead><tr><th scope="col">Evaluation</th><th scope="col" class="num">Return</th><th scope="col" class="num">95% interval</th><th scope="col" class="num">Success</th><th scope="col" class="num">Episodes</th><th scope="col">Kept</th></tr></thead>
    <tbody>${run.evaluations.map((row) => html`<tr><th scope="row">${row.name}</th><td class="num">${figure(row.return_mean)}</td>
      <td class="num">${figure(row.return_low)} to ${figure(row.return_high)}</td><td class="num">${percent(row.success_rate)}</td><td class="num">${count(row.episodes)}</td>
      <td><a href=${address("episodes", { run: run.key, evaluation: row.name })} aria-label=${`look at the kept episodes of ${row.name}`}>look</a></td></tr>`)}</tbody>
  </table></div>`;
}

export function RunPage({ asked }) {
  const [run, error] = useData("run", { run: asked.run }, POLL_MS);
  useKeys({ Enter: () => go("episodes", { run: asked.run }) });
  if (error && !run) return html`<h1>Run</h1><${Problem} error=${error}/>`;
  if (!run) return html`<${Waiting} what="the run"/>`;
  return html`
    <div class="title"><h1>${run.name}</h1><${State} state=${run.state}/><a class="button" href=${address("episodes", { run: run.key })}>Episodes</a></div>
    ${error && html`<${Problem} error=${error}/>`}
    ${run.problems.map((problem) => html`<p class="problem">${problem}</p>`)}
    ${(run.summary.notes || []).map((note) => html`<p class="note">${note}</p>`)}
    <dl class="facts card">
      <${Fact} label="Task">${run.env || "–"}<//><${Fact} label="Method">${run.algorithm || "–"}<//>
      <${Fact} label="Cycles">${run.cycle}${run.cycles ? ` of ${run.cycles}` : ""}<//><${Fact} label="Episodes">${count(run.episodes)}<//>
      <${Fact} label="Policy version">${count(run.version)}<//><${Fact} label="Time">${seconds(run.wall_seconds)}<//>
      <${Fact} label="Return">${figure(run.return)}<//><${Fact} label="Last evaluation">${figure(run.evaluated)}<//><${Fact} label="Best evaluation">${figure(run.best)}<//>
    </dl>
    <h2>Curves</h2>
    ${run.charts.length ? html`<div class="charts">${run.charts.map((chart) => html`<${Chart} ...${chart} key=${chart.id}/>`)}</div>` : html`<p class="note">No cycle and no evaluation has finished yet.</p>`}
    <${Evaluations} run=${run}/>
    <h2>Details</h2>
    <details class="card"><summary>All ${run.metrics.length} metrics of a cycle</summary><${Metrics} metrics=${run.metrics}/></details>
    <details class="card"><summary>config.yaml</summary><pre>${run.config || "There is no config.yaml."}</pre></details>
    <details class="card"><summary>summary.json</summary><pre>${Object.keys(run.summary).length ? JSON.stringify(run.summary, null, 2) : "The run has written no summary yet."}</pre></details>`;
}

const Metrics = ({ metrics }) => html`<div class="scroll"><table><thead><tr><th scope="col">Metric</th><th scope="col" class="num">First</th><th scope="col" class="num">Last</th><th scope="col" class="num">Least</th><th scope="col" class="num">Most</th></tr></thead>
  <tbody>${metrics.map(({ title, series: [{ y }] }) => html`<tr><th scope="row">${title}</th>${[y[0], y[y.length - 1], Math.min(...y), Math.max(...y)].map((value) => html`<td class="num">${figure(value, 4)}</td>`)}</tr>`)}</tbody></table></div>`;
