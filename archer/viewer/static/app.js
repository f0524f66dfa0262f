// The frame of the page: address, header, theme and the list of keys.
import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { parseAddress, useKeys } from "./lib.js";
import { Runs } from "./runs.js";
import { RunPage } from "./run.js";
import { Episodes } from "./episodes.js";
import { EpisodePage } from "./episode.js";
import { Compare } from "./compare.js";

const VIEWS = { runs: Runs, run: RunPage, episodes: Episodes, episode: EpisodePage, compare: Compare };
const TITLES = { runs: "Runs", run: "Run", episodes: "Episodes", episode: "Episode", compare: "Compare" };
const KEYS = [
  ["g r", "runs"],
  ["g e", "episodes"],
  ["/", "search"],
  ["j k", "next and previous: run, episode or turn"],
  ["Enter", "open what is marked"],
  ["x", "choose the marked episode for a comparison; the second one opens it"],
  ["n p", "next and previous page of episodes"],
  ["[ ]", "previous and next episode of the list"],
  ["s", "shade tokens by something else"],
  ["c", "compare with another policy version of this seed"],
  ["t", "light or dark"],
  ["?", "these keys"],
];

function nextTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* a browser without storage forgets the theme */ }
  dispatchEvent(new Event("theme"));
}

function Keys({ close }) {
  return html`<section class="card keys" aria-label="Keys">
    <h2>Keys</h2>
    <dl>${KEYS.map(([key, what]) => html`<dt>${key.split(" ").map((one) => html`<kbd>${one}</kbd>`)}</dt><dd>${what}</dd>`)}</dl>
    <button type="button" onClick=${close}>Close</button>
  </section>`;
}

function App() {
  const [at, setAt] = useState(parseAddress());
  const [keys, setKeys] = useState(false);
  const [waitsForView, setWaits] = useState(false);
  useEffect(() => {
    const move = () => setAt(parseAddress());
    addEventListener("hashchange", move);
    return () => removeEventListener("hashchange", move);
  }, []);
  useEffect(() => {
    document.title = `${TITLES[at.view] || "ArCHer"} · ArCHer`;
    scrollTo(0, 0);
  }, [at.view, at.asked.run, at.asked.row]);
  const then = (view) => () => { if (waitsForView) { setWaits(false); location.hash = `#/${view}`; } };
  useKeys({ g: () => setWaits(true), r: then("runs"), e: then("episodes"), "?": () => setKeys(!keys), t: nextTheme, Escape: () => setKeys(false) });
  const View = VIEWS[at.view];
  const tab = (view, label) => html`<a href=${`#/${view}`} aria-current=${at.view === view ? "page" : null}>${label}</a>`;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <header>
      <a class="brand" href="#/runs"><img src="/static/icon.svg" alt="" width="24" height="24"/>ArCHer</a>
      <nav aria-label="Views">${tab("runs", "Runs")}${tab("episodes", "Episodes")}</nav>
      <div class="tools">
        <button type="button" onClick=${() => setKeys(!keys)} aria-expanded=${keys}>Keys <kbd>?</kbd></button>
        <button type="button" onClick=${nextTheme}>Theme <kbd>t</kbd></button>
      </div>
    </header>
    <main id="main" tabindex="-1">
      ${keys && html`<${Keys} close=${() => setKeys(false)}/>`}
      ${View ? html`<${View} asked=${at.asked} key=${at.view}/>` : html`<p class="problem">There is no view ${at.view}.</p>`}
    </main>`;
}

try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* the system's theme */ }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));
render(html`<${App}/>`, document.getElementById("app"));
