// The table of episodes: filters, full-text search, pages, and the choice of two to compare.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Outcome, POLL_MS, Problem, Waiting, address, count, figure, go, reference, replaceAddress, stageOf, useData, useKeys, versionOf } from "./lib.js";

const LIMIT = 50;
const SORTS = [["", "newest first"], ["return", "highest return"], ["return_up", "lowest return"], ["turns", "most turns"], ["turns_up", "fewest turns"], ["version", "newest policy"], ["version_up", "oldest policy"], ["seed", "seed"]];
export const listing = { rows: [], asked: {} };  // what the page of an episode steps through

const Choice = ({ label, name, asked, change, options }) => html`<label>${label}
  <select value=${asked[name] || ""} onChange=${(event) => change({ [name]: event.target.value })}>${options.map(([value, text]) => html`<option value=${value} selected=${(asked[name] || "") === value}>${text}</option>`)}</select></label>`;

function Range({ label, name, asked, change, ranges }) {
  const field = (bound, word) => html`<input type="number" step="any" value=${asked[`${bound}_${name}`] || ""} placeholder=${ranges ? figure(ranges[`${bound}_${name}`], name === "return" ? 1 : 0) : ""} aria-label=${`${label}, ${word}`} onChange=${(event) => change({ [`${bound}_${name}`]: event.target.value })}/>`;
  return html`<fieldset><legend>${label}</legend>${field("min", "at least")}<span aria-hidden="true">to</span>${field("max", "at most")}</fieldset>`;
}

function Filters({ asked, change, box }) {
  const [found] = useData("facets", {}, POLL_MS * 3);
  const facets = found || { run: [], stage: [], env: [], ranges: null };
  const options = (name, all) => [["", all], ...facets[name].map(({ value, n }) => [value, `${value} (${count(n)})`])];
  const timer = useRef(0);
  const search = (event) => {
    const q = event.target.value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => change({ q }), 250);
  };
  const used = Object.keys(asked).some((name) => !["sort", "offset"].includes(name) && asked[name]);
  return html`<form class="card filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <label class="search">Search in all messages<input type="search" ref=${box} value=${asked.q || ""} onInput=${search} placeholder='words, or "a phrase"' /></label>
    <${Choice} label="Run" name="run" ...${{ asked, change }} options=${options("run", "all runs")}/>
    <${Choice} label="Stage" name="stage" ...${{ asked, change }} options=${options("stage", "all stages")}/>
    <${Choice} label="Task" name="env" ...${{ asked, change }} options=${options("env", "all tasks")}/>
    <${Choice} label="Outcome" name="success" ...${{ asked, change }} options=${[["", "any"], ["yes", "success"], ["no", "failure"], ["unknown", "not defined"]]}/>
    <${Range} label="Return" name="return" ...${{ asked, change }} ranges=${facets.ranges}/>
    <${Range} label="Turns" name="turns" ...${{ asked, change }} ranges=${facets.ranges}/>
    <${Range} label="Policy version" name="version" ...${{ asked, change }} ranges=${facets.ranges}/>
    <${Choice} label="Order" name="sort" ...${{ asked, change }} options=${SORTS}/>
    ${asked.evaluation && html`<p class="filter">evaluation ${asked.evaluation} <button type="button" onClick=${() => change({ evaluation: "" })} aria-label="all evaluations">×</button></p>`}
    ${asked.seed && html`<p class="filter">seed ${asked.seed}</p>`}
    ${used && html`<button type="button" onClick=${() => go("episodes")}>Clear filters</button>`}
  </form>`;
}

function Excerpt({ text, terms }) {
  const at = text.toLowerCase().indexOf(terms[0]);
  if (at < 0) return text;
  const end = at + terms[0].length;
  return html`${text.slice(0, at)}<mark>${text.slice(at, end)}</mark>${text.slice(end)}`;
}

function Row({ row, marked, chosen, choose, terms }) {
  const line = useRef(null);
  useEffect(() => { if (marked && line.current) line.current.scrollIntoView({ block: "nearest" }); }, [marked]);
  return html`<tr ref=${line} class=${(marked ? "marked " : "") + (chosen ? "chosen" : "")}>
    <td><input type="checkbox" checked=${chosen} onChange=${choose} aria-label=${`compare ${row.episode_id}, ${versionOf(row)}`}/></td>
    <th scope="row"><a href=${address("episode", reference(row))}>${row.task_id || row.episode_id}</a>${row.excerpt && html`<div class="small dim excerpt"><${Excerpt} text=${row.excerpt} terms=${terms}/></div>`}</th>
    <td class="num">${figure(row.ret)}</td><td><${Outcome} success=${row.success}/></td><td class="num">${row.turns}</td><td class="num">${count(row.tokens)}</td>
    <td>${row.version < 0 ? html`<span class="dim">none</span>` : row.version}</td><td>${stageOf(row)}</td><td>${row.env}</td><td class="num">${row.seed}</td><td>${row.run}</td>
  </tr>`;
}

export function Episodes({ asked }) {
  const [content, error] = useData("episodes", { ...asked, limit: LIMIT }, POLL_MS * 2);
  const [marked, setMarked] = useState(0);
  const [chosen, setChosen] = useState([]);
  const box = useRef(null);
  const offset = Number(asked.offset || 0);
  const change = (part) => { setMarked(0); replaceAddress("episodes", { ...asked, offset: "", ...part }); };
  const rows = content ? content.rows : [];
  listing.rows = rows;
  listing.asked = asked;
  const same = (a, b) => a.run === b.run && a.file === b.file && a.row === b.row;
  const choose = (row) => {
    if (chosen.some((one) => same(one, row))) return setChosen(chosen.filter((one) => !same(one, row)));
    const next = [...chosen, reference(row)].slice(-2);
    return next.length === 2 ? go("compare", pair(next)) : setChosen(next);
  };
  const turnPage = (by) => { const next = offset + by * LIMIT; if (content && next >= 0 && next < content.total) change({ offset: String(next) }); };
  useKeys({
    "/": () => box.current.focus(),
    j: () => setMarked(Math.min(marked + 1, rows.length - 1)),
    k: () => setMarked(Math.max(marked - 1, 0)),
    Enter: () => rows[marked] && go("episode", reference(rows[marked])),
    x: () => rows[marked] && choose(rows[marked]),
    n: () => turnPage(1),
    p: () => turnPage(-1),
  });
  const last = content ? Math.min(offset + rows.length, content.total) : 0;
  return html`
    <div class="title"><h1>Episodes</h1><p class="dim" role="status">${content ? (content.total ? `${count(offset + 1)} to ${count(last)} of ${count(content.total)}` : "none") : ""}</p></div>
    <${Filters} asked=${asked} change=${change} box=${box}/>
    ${error && html`<${Problem} error=${error}/>`}
    ${chosen.length === 1 && html`<p class="note" role="status">One episode is chosen; choose another one to compare them.</p>`}
    ${!content && !error && html`<${Waiting} what="episodes"/>`}
    ${content && !content.total && html`<p class="note">No episode matches. ${Object.keys(asked).length ? html`<button type="button" onClick=${() => go("episodes")}>Clear filters</button>` : "Runs keep episodes from their first evaluation on."}</p>`}
    ${rows.length > 0 && html`<div class="scroll card" tabindex="0" role="region" aria-label="Table of episodes"><table class="wide">
      <thead><tr><th scope="col">Compare</th><th scope="col">Episode</th><th scope="col" class="num">Return</th><th scope="col">Outcome</th><th scope="col" class="num">Turns</th><th scope="col" class="num">Tokens</th><th scope="col">Policy</th><th scope="col">Stage</th><th scope="col">Task</th><th scope="col" class="num">Seed</th><th scope="col">Run</th></tr></thead>
      <tbody>${rows.map((row, i) => html`<${Row} row=${row} marked=${i === marked} chosen=${chosen.some((one) => same(one, row))} choose=${() => choose(row)} terms=${content.terms} key=${`${row.run} ${row.file} ${row.row}`}/>`)}</tbody>
    </table></div>
    <nav class="pages" aria-label="Pages"><button type="button" disabled=${offset === 0} onClick=${() => turnPage(-1)}>Previous <kbd>p</kbd></button><button type="button" disabled=${last >= content.total} onClick=${() => turnPage(1)}>Next <kbd>n</kbd></button></nav>`}`;
}

export function pair([a, b]) {
  return { a_run: a.run, a_file: a.file, a_row: a.row, b_run: b.run, b_file: b.file, b_row: b.row };
}
