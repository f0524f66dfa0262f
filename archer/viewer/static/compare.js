// Two episodes side by side, turn by turn: two policy versions of one seed, or any two.
import { html } from "./vendor/preact-htm.js";
import { Legend, Message, Shade, Turn, mostAdvantage, versionBefore } from "./conversation.js";
import { siblingName, useShade } from "./episode.js";
import { pair } from "./episodes.js";
import { Outcome, Problem, Waiting, address, figure, go, reference, stageOf, useData, useKeys, versionOf } from "./lib.js";

const of = (asked, side) => ({ run: asked[`${side}_run`], file: asked[`${side}_file`], row: asked[`${side}_row`] });
const same = (a, b) => a.run === b.run && a.file === b.file && Number(a.row) === Number(b.row);

function Head({ episode, label, swap }) {
  const at = episode.siblings.findIndex((row) => same(row, episode));
  return html`<div class="card side">
    <h2><a href=${address("episode", reference(episode))}>${episode.task_id || episode.episode_id}</a></h2>
    <p><strong>${versionOf(episode)}</strong>, ${stageOf(episode)} · ${episode.run}</p>
    <p>return <strong>${figure(episode.return)}</strong> <${Outcome} success=${episode.success}/>, ${episode.turns.length} turns, seed ${episode.seed}</p>
    <label>${label}<select onChange=${(event) => swap(episode.siblings[Number(event.target.value)])}>${episode.siblings.map((row, i) => html`<option value=${i} selected=${i === at}>${siblingName(row)}</option>`)}</select></label>
  </div>`;
}

function Cell({ episode, at, ...more }) {
  const turn = episode.turns[at];
  return html`<div class="cell">${turn ? html`<${Turn} turn=${turn} ...${more} before=${versionBefore(episode, at)}/>` : html`<p class="ended">The episode has ended.</p>`}</div>`;
}

export function Compare({ asked }) {
  const [a, errorA] = useData("episode", of(asked, "a"));
  const [b, errorB] = useData("episode", of(asked, "b"));
  const { shade, setShade, next } = useShade();
  const exchange = () => go("compare", pair([of(asked, "b"), of(asked, "a")]));
  useKeys({ s: next, x: exchange });
  const error = errorA || errorB;
  if (error) return html`<h1>Compare</h1><${Problem} error=${error}/>`;
  if (!a || !b) return html`<${Waiting} what="two episodes"/>`;
  const most = mostAdvantage(a, b);
  const turns = Math.max(a.turns.length, b.turns.length);
  const opening = JSON.stringify(a.opening) === JSON.stringify(b.opening);
  return html`
    <div class="title"><h1>Compare</h1>${a.seed === b.seed && a.env === b.env ? html`<p class="dim">the same seed, ${a.seed}</p>` : html`<p class="dim">different seeds</p>`}<button type="button" onClick=${exchange}>Exchange <kbd>x</kbd></button></div>
    <div class="shading"><${Shade} ...${{ shade, setShade }}/><${Legend} shade=${shade}/></div>
    <div class="pair heads"><${Head} episode=${a} label="Left" swap=${(row) => go("compare", pair([row, b]))}/><${Head} episode=${b} label="Right" swap=${(row) => go("compare", pair([a, row]))}/></div>
    ${opening ? a.opening.map((message) => html`<${Message} message=${message}/>`) : html`<div class="pair">${[a, b].map((one) => html`<div class="cell">${one.opening.map((message) => html`<${Message} message=${message}/>`)}</div>`)}</div>`}
    ${Array.from({ length: turns }, (_, i) => html`<div class="pair" key=${i}><${Cell} ...${{ episode: a, at: i, shade, most }}/><${Cell} ...${{ episode: b, at: i, shade, most }}/></div>`)}`;
}
