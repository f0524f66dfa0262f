// An episode as a conversation: each turn with its values, each token with its shade. All text is text, never markup.
import { html, useEffect, useRef } from "./vendor/preact-htm.js";
import { figure, seconds, signed } from "./lib.js";

export const SHADES = [["none", "plain text"], ["logprob", "log-probability"], ["advantage", "advantage"]];
const STEPS = 5;

function level(token, shade, turn, most) {
  if (shade === "logprob") {
    const step = Math.min(STEPS, Math.floor(-token.logprob / 0.8));
    return step > 0 ? `lp${step}` : "";
  }
  if (shade === "advantage") {
    const value = token.advantage ?? turn.values[0]?.advantage;
    if (value === undefined || value === null || !most) return "";
    const step = Math.min(STEPS, Math.ceil((Math.abs(value) / most) * STEPS));
    return step > 0 ? `${value > 0 ? "ap" : "an"}${step}` : "";
  }
  return "";
}

const say = (token, turn) => {
  const value = token.advantage ?? turn.values[0]?.advantage;
  const probability = Math.exp(token.logprob);
  const parts = [`log-probability ${figure(token.logprob, 3)}`, `probability ${probability < 0.001 ? probability.toExponential(1) : probability.toFixed(3)}`, `policy version ${token.version}`];
  return [...parts, ...(value === undefined || value === null ? [] : [`advantage ${figure(value, 3)}`])].join(", ");
};

function Tokens({ turn, shade, most, before }) {
  let version = before;
  return html`<div class="said tokens">${turn.tokens.map((token) => {
    const changed = version !== null && token.version !== version;
    version = token.version;
    return html`${changed && html`<span class="boundary">policy ${token.version}</span>`}<span class=${`token ${level(token, shade, turn, most)}`} title=${say(token, turn)}>${visible(token.text)}</span>`;
  })}</div>`;
}

// A token that is only a line end would have no place to show its shade.
const visible = (text) => (text.trim() === "" && text.includes("\n") ? `↵${text}` : text);

const tone = (value) => (value > 0 ? "plus" : value < 0 ? "minus" : "");
const Value = ({ label, value, title, sign }) => html`<span class=${`value ${sign ? tone(value) : ""}`} title=${title}><span class="dim">${label}</span> ${sign ? signed(value) : figure(value)}</span>`;
const VALUES = [["q", "Q", "Q(s, a)"], ["v", "V", "V(s)"], ["advantage", "A", "advantage"], ["target", "target", "target of Q"]];

// The values as the first step used them, and as the newest critic sees them. Without the latter, those of the newest
// cycle that used the turn again.
function Used({ values, newest }) {
  const rows = newest ? [...values.slice(0, 1), newest] : values.length > 1 ? [values[0], values[values.length - 1]] : values;
  const known = VALUES.filter(([name]) => rows.some((row) => row[name] !== null));
  return html`<div class="useds">${rows.map((row, i) => {
    const when = row === newest ? `as the critic sees it after ${row.cycle} cycles` : i ? `in cycle ${row.cycle}, the newest that used this turn` : `as first used, in cycle ${row.cycle}`;
    return html`<span class="dim">${row === newest ? "now, " : i ? "latest, " : "used, "}cycle ${row.cycle}</span>${known.map(([name, label, long]) => html`<${Value} label=${label} value=${row[name]} sign=${name === "advantage"} title=${`${long} ${when}`}/>`)}${VALUES.slice(known.length).map(() => html`<span></span>`)}`;
  })}</div>`;
}

function Figures({ turn }) {
  const cut = turn.stop && !turn.stop.startsWith("stop");
  const slow = turn.action_seconds !== null && turn.action_seconds !== undefined;
  return html`<div class="figures">
    <${Value} label="reward" value=${turn.reward} sign title="reward of this turn"/>
    ${cut && html`<span class="flag">${turn.stop}</span>`}
    ${turn.invalid && html`<span class="flag">invalid action</span>`}
    ${turn.stop && !cut && html`<span class="small dim" title="why the action ended">${turn.stop}</span>`}
    ${slow && html`<span class="small dim" title="seconds of the action, with the wait for the engine">${seconds(turn.action_seconds)}</span>`}
    ${slow && turn.env_seconds >= 0.01 && html`<span class="small dim" title="seconds of the environment's step">environment ${seconds(turn.env_seconds)}</span>`}
  </div>`;
}

export function Message({ message }) {
  return html`<div class=${`message ${message.role === "system" ? "system" : "other"}`}><span class="role">${message.role}</span><div class="said">${message.content}</div></div>`;
}

export function Turn({ turn, shade, most, marked, before }) {
  const place = useRef(null);
  useEffect(() => { if (marked && place.current) place.current.scrollIntoView({ block: "nearest" }); }, [marked]);
  return html`<article class=${`turn ${marked ? "marked" : ""}`} ref=${place} aria-label=${`turn ${turn.turn + 1}`}>
    <div class="message policy">
      <div class="head"><span class="role">turn ${turn.turn + 1}</span><${Figures} turn=${turn}/></div>
      ${turn.tokens.length ? html`<${Tokens} ...${{ turn, shade, most, before }}/>` : html`<div class="said">${turn.action}</div>`}
      ${(turn.values.length > 0 || turn.newest) && html`<${Used} values=${turn.values} newest=${turn.newest}/>`}
    </div>
    ${turn.after.map((message) => html`<${Message} message=${message}/>`)}
  </article>`;
}

export function mostAdvantage(...episodes) {
  const values = episodes.flatMap((one) => one.turns.flatMap((turn) => [turn.values[0]?.advantage, ...turn.tokens.map((token) => token.advantage)]));
  return Math.max(0, ...values.filter((value) => value !== undefined && value !== null).map(Math.abs));
}

export function versionBefore(episode, turn) {
  for (let i = turn - 1; i >= 0; i -= 1) {
    const { tokens } = episode.turns[i];
    if (tokens.length) return tokens[tokens.length - 1].version;
  }
  return null;
}

export function Shade({ shade, setShade }) {
  return html`<fieldset class="choice"><legend>Shade tokens by</legend>${SHADES.map(([value, label]) => html`<label><input type="radio" name="shade" checked=${shade === value} onChange=${() => setShade(value)}/>${label}</label>`)}</fieldset>`;
}

export function Legend({ shade }) {
  if (shade === "none") return null;
  const steps = shade === "logprob" ? [0, 1, 2, 3, 4, 5].map((i) => [`lp${i}`, i === 5 ? "below 2%" : `${Math.round(100 * Math.exp(-0.8 * i))}%`]) : [["an5", "worse"], ["an2", ""], ["", "as expected"], ["ap2", ""], ["ap5", "better"]];
  return html`<p class="legend small" aria-label="shades">${shade === "logprob" ? "probability, from " : "advantage: "}${steps.map(([name, label]) => html`<span class=${`token ${name}`}>${label || "\u00a0\u00a0"}</span>`)}</p>`;
}
