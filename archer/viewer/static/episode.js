// One episode: its facts, its values over the turns, and the conversation.
import { html, useState } from "./vendor/preact-htm.js";
import { Chart } from "./chart.js";
import { Legend, Message, SHADES, Shade, Turn, mostAdvantage, versionBefore } from "./conversation.js";
import { listing, pair } from "./episodes.js";
import { Outcome, Problem, Waiting, address, figure, go, reference, stageOf, useData, useKeys, versionOf } from "./lib.js";

const kept = { shade: "logprob" };  // the choice stays while one steps from episode to episode

export function useShade() {
  const [shade, set] = useState(kept.shade);
  const setShade = (value) => { kept.shade = value; set(value); };
  const next = () => setShade(SHADES[(SHADES.findIndex(([value]) => value === shade) + 1) % SHADES.length][0]);
  return { shade, setShade, next };
}

function valueSeries(episode) {
  const turns = episode.turns.map((turn) => turn.turn + 1);
  const toGo = episode.turns.map((_, i) => episode.turns.slice(i).reduce((sum, turn) => sum + turn.reward, 0));
  const of = (name) => {
    const known = episode.turns.filter((turn) => turn.values.length && turn.values[0][name] !== null);
    return { label: name.toUpperCase(), x: known.map((turn) => turn.turn + 1), y: known.map((turn) => turn.values[0][name]) };
  };
  return [{ label: "return to go", x: turns, y: toGo }, of("q"), of("v")];
}

export function Facts({ episode }) {
  const facts = [
    ["Return", figure(episode.return)],
    ["Outcome", html`<${Outcome} success=${episode.success}/>`],
    ["Turns", episode.turns.length],
    ["Ended because", episode.end],
    ["Policy", versionOf(episode)],
    ["Stage", `${stageOf(episode)}${episode.cycle ? `, cycle ${episode.cycle}` : ""}`],
    ["Task", episode.env],
    ["Seed", episode.seed],
    ["Run", html`<a href=${address("run", { run: episode.run })}>${episode.run}</a>`],
    ["Id", html`<code>${episode.episode_id}</code>`],
  ];
  return html`<dl class="facts card">${facts.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export const siblingName = (row) => `${row.run}: ${versionOf(row)}, ${stageOf(row)}, return ${figure(row.ret)}`;
const same = (a, b) => a.run === b.run && a.file === b.file && Number(a.row) === Number(b.row);

function Siblings({ episode }) {
  const others = episode.siblings.filter((row) => !same(row, episode));
  if (!others.length) return html`<p class="dim small">No other episode of seed ${episode.seed} is kept.</p>`;
  const open = (event) => { if (event.target.value) go("compare", pair([episode, others[Number(event.target.value)]])); };
  return html`<label class="siblings">Compare with the same seed<select onChange=${open}><option value="">${others.length} other episodes…</option>${others.map((row, i) => html`<option value=${i}>${siblingName(row)}</option>`)}</select></label>`;
}

export function EpisodePage({ asked }) {
  const [episode, error] = useData("episode", { run: asked.run, file: asked.file, row: asked.row });
  const { shade, setShade, next } = useShade();
  const [marked, setMarked] = useState(-1);
  const turns = episode ? episode.turns.length : 0;
  const at = listing.rows.findIndex((row) => same(row, asked));
  const step = (by) => { const row = at >= 0 && listing.rows[at + by]; if (row) { setMarked(-1); go("episode", reference(row)); } };
  const others = episode ? episode.siblings.filter((row) => !same(row, episode)) : [];
  useKeys({
    j: () => setMarked(Math.min(marked + 1, turns - 1)),
    k: () => setMarked(Math.max(marked - 1, 0)),
    s: next,
    c: () => others.length && go("compare", pair([episode, others[others.length - 1]])),
    "[": () => step(-1),
    "]": () => step(1),
    Escape: () => go("episodes", listing.asked),
  });
  if (error) return html`<h1>Episode</h1><${Problem} error=${error}/>`;
  if (!episode || !same(episode, asked)) return html`<${Waiting} what="the episode"/>`;
  const most = mostAdvantage(episode);
  const hasTokens = episode.turns.some((turn) => turn.tokens.length);
  const hasValues = episode.turns.some((turn) => turn.values.length);
  return html`
    <div class="title"><h1>${episode.task_id || episode.episode_id}</h1><a class="button" href=${address("episodes", listing.asked)}>All episodes</a>
      ${at >= 0 && html`<span class="steps"><button type="button" disabled=${at === 0} onClick=${() => step(-1)}>Previous <kbd>[</kbd></button><button type="button" disabled=${at === listing.rows.length - 1} onClick=${() => step(1)}>Next <kbd>]</kbd></button></span>`}</div>
    <div class="episode">
      <aside aria-label="About this episode">
        <${Facts} episode=${episode}/>
        <div class="card"><${Siblings} episode=${episode}/></div>
        ${hasValues && html`<${Chart} title="Values over the turns" series=${valueSeries(episode)} height=${190} xLabel="turn" level=${2}/>`}
      </aside>
      <section aria-label="Conversation" class="conversation">
        ${hasTokens && html`<div class="shading"><${Shade} ...${{ shade, setShade }}/><${Legend} shade=${shade}/></div>`}
        ${shade === "advantage" && !hasValues && html`<p class="note">No step has used this episode, so it has no values: ${episode.stage === "training" ? "the learner has not drawn it from replay, or only in cycles that are not kept." : "the learner draws training episodes only."}</p>`}
        ${episode.opening.map((message) => html`<${Message} message=${message}/>`)}
        ${episode.turns.map((turn, i) => html`<${Turn} ...${{ turn, shade, most, marked: i === marked, before: versionBefore(episode, i) }} key=${i}/>`)}
        <p class="end">${episode.end}: return ${figure(episode.return)} <${Outcome} success=${episode.success}/></p>
      </section>
    </div>`;
}
