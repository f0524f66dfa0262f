// What all views share: the data, the address, numbers as text, and keys.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

export const POLL_MS = 3000;

export async function get(path, parameters = {}) {
  const known = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(known).toString();
  let answer;
  try {
    answer = await fetch(`/api/${path}${query ? `?${query}` : ""}`, { headers: { accept: "application/json" } });
  } catch {
    throw new Error("The viewer does not answer. Is `archer view` still running?");
  }
  if (answer.status === 401) throw new Error("The token is missing or wrong. Open the address that `archer view` has printed.");
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `The viewer answered ${answer.status}.`);
  return content;
}

// Returns [content, error]; asks again every `every` milliseconds while the page is visible. Content stays until new
// content has come, so that a page that updates does not flicker.
export function useData(path, parameters, every = 0) {
  const [found, setFound] = useState([null, null, ""]);
  const key = path + JSON.stringify(parameters);
  useEffect(() => {
    let current = true;
    const ask = () =>
      get(path, parameters).then(
        (content) => current && setFound([content, null, key]),
        (error) => current && setFound(([before, , of]) => [of === key ? before : null, error, key]),
      );
    ask();
    const timer = every ? setInterval(() => document.hidden || ask(), every) : 0;
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, [key, every]);
  return found;
}

export function parseAddress() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path || "runs", asked: Object.fromEntries(new URLSearchParams(query || "")) };
}

export function address(view, asked = {}) {
  const known = Object.entries(asked).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(known).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export const go = (view, asked) => { location.hash = address(view, asked); };
export const replaceAddress = (view, asked) => {
  history.replaceState(null, "", address(view, asked));
  dispatchEvent(new HashChangeEvent("hashchange"));
};

export const reference = (row) => ({ run: row.run, file: row.file, row: row.row });

const whole = new Intl.NumberFormat("en");
export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export function figure(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1) : value.toFixed(digits);
  return text.replace("-", "−");
}
export const signed = (value) => (value > 0 ? "+" : "") + figure(value);
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)}%`);
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 60) return `${value < 10 ? value.toFixed(2) : Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

// Whether the key belongs to a field; a box that is ticked takes none of the keys below.
const typing = ({ target }) => /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !/^(checkbox|radio)$/.test(target.type);

// Calls the function of a key, unless the user types into a field or holds a modifier.
export function useKeys(keys) {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
      const act = latest.current[event.key];
      if (!act || (event.key === "Enter" && /^(A|BUTTON|SUMMARY)$/.test(event.target.tagName))) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

export const Problem = ({ error }) => html`<p class="problem" role="alert">${error.message}</p>`;
export const Waiting = ({ what }) => html`<p class="waiting" role="status">Loading ${what}…</p>`;
export const State = ({ state }) => html`<span class=${`pill ${state}`}>${state}</span>`;

export function Outcome({ success }) {
  if (success === null || success === undefined) return html`<span class="dim">–</span>`;
  return html`<span class=${success ? "good" : "bad"}>${success ? "✓ success" : "✗ failure"}</span>`;
}

export const stageOf = (row) => (row.stage === "evaluation" ? row.evaluation || "evaluation" : row.stage || "demonstration");
export const versionOf = (row) => (row.version === null || row.version < 0 ? "no policy" : `version ${row.version}`);
