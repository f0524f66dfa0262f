"""Compare the critic of the demo with exact values, and show how far its actor comes with these in place of Q.

The exact values are those of a player that draws its questions as the policy does at present, in the mean over all
states (`bench.belief_values`). The correlation is that of the advantages of the fresh actions, centred in each state.
A critic that knows how good each question is on average, and nothing of the state, has about 0.35.

Cases: `bounded` is the preset, with `recent_repeats`; `unbounded` draws the first episodes without a bound, as the
demo did before; `exact` gives the actor the exact advantages.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import numpy as np
from transformers import PreTrainedTokenizerBase

from archer.config.loading import load_config
from archer.driver.inline import run_inline
from archer.driver.run_folder import RunFolder
from bench.belief_values import ALL, player_values, question, question_values
from buffer.episodes.schema import Episode
from envs.twenty_questions.game import MAX_TURNS
from learner.algorithm_config import ActorConfig
from learner.algorithms.archer import Archer
from learner.algorithms.base import MicroBatches, StepResult
from learner.algorithms.phases import Phase
from learner.algorithms.setup import Setup
from learner.passes.rows import Row, fresh_shares

EVERY = 25
"""Critic steps between two measures, each over the batches of four steps."""
OF_MEASURE = 4
KEPT = 0.98
"""Share of the earlier questions' weight that remains after each batch, in the mean over the policy's questions."""
CASES: dict[str, tuple[str, ...]] = {
    "bounded": (),
    "unbounded": ("learner.critic.recent_repeats=1e9",),
    "exact": ("learner.critic.warmup_steps=0", "learner.critic.steps_per_cycle=1"),
}
COLUMNS = {"case": "case", "cycle": "cycle", "step": "critic step", "correlation": "correlation", "return": "return"}


class Exact:
    """Advantages of the fresh actions by the exact values of the player that the policy is in the mean."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, gamma: float) -> None:
        self._tokenizer = tokenizer
        self._gamma = gamma
        self._weights: defaultdict[str, float] = defaultdict(float)

    def advantages(self, rows: Sequence[Row]) -> np.ndarray:
        """Return A of the fresh actions of `rows`, float64 [states, most actions], 0 at pads."""
        shares = fresh_shares(rows)
        texts = [[self._text(tokens) for tokens in row.fresh_at(i)] for row in rows for i in range(len(row.states))]
        self._note(texts, shares)
        total = sum(self._weights.values())
        values = player_values({text: weight / total for text, weight in self._weights.items()}, self._gamma)
        q = np.zeros(shares.shape)
        known: dict[tuple[int, str], np.ndarray] = {}
        places = ((self._words(row.episode, int(turn)), int(turn)) for row in rows for turn in row.states)
        for state, ((words, turn), asked) in enumerate(zip(places, texts, strict=True)):
            for number, text in enumerate(asked):
                if (turn, text) not in known:
                    # A state after the twentieth question is no state of the game; its values are not used.
                    later = values[max(MAX_TURNS - turn - 1, 0)]
                    known[turn, text] = question_values(later, question(text), self._gamma)
                q[state, number] = known[turn, text][words]
        return np.where(shares > 0, q - (q * shares).sum(-1, keepdims=True), 0.0)

    def _note(self, texts: Sequence[Sequence[str]], shares: np.ndarray) -> None:
        for text in self._weights:
            self._weights[text] *= KEPT
        for asked, share in zip(texts, shares, strict=True):
            for text, weight in zip(asked, share, strict=False):
                self._weights[text] += float(weight)

    def _words(self, episode: Episode, turn: int) -> int:
        """Return the words that agree with the answers before turn `turn`."""
        words = ALL
        for earlier in range(turn):
            end = episode.action_end[earlier]
            asked = question(self._text(episode.tokens[episode.action_start[earlier] : end]))
            after = episode.action_start[earlier + 1] if earlier + 1 < episode.turns else len(episode.tokens)
            words = asked.left(words, self._text(episode.tokens[end:after])) or words
        return words

    def _text(self, tokens: np.ndarray) -> str:
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True)).strip()


class Correlation:
    """The correlation of two arrays of advantages, each action weighted by its share."""

    def __init__(self) -> None:
        self._products = np.zeros(3)

    def add(self, found: np.ndarray, exact: np.ndarray, shares: np.ndarray) -> None:
        self._products += [(shares * product).sum() for product in (found * exact, found * found, exact * exact)]

    def value(self) -> float:
        both, first, second = self._products
        return float(both / np.sqrt(first * second)) if min(first, second) > 0.0 else float("nan")


class MeasuredArcher(Archer):
    """ArCHer that compares its critic with the exact values, and uses these for the actor in the case `exact`.

    Attributes, of the class because the run makes the object:
        replaces: whether the actor takes the exact advantages.
        measures: a row for each measure of the critic.
    """

    replaces: bool = False
    measures: ClassVar[list[dict[str, float]]] = []

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._exact = Exact(setup.tokenizer, self.config.critic.gamma)
        self._correlation = Correlation()
        self._cycle = self._steps = 0

    def phases(self, cycle: int) -> Sequence[Phase]:
        self._cycle = cycle
        return super().phases(cycle)

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        if phase.name == "critic":
            self._steps += 1
            if not self.replaces and (self._steps - 1) % EVERY >= EVERY - OF_MEASURE:
                self._measure(micro_batches)
        elif self.replaces:
            for rows in micro_batches:
                self._replace(rows)
        return super().step(phase, micro_batches, samples, version)

    def _measure(self, micro_batches: MicroBatches) -> None:
        for rows in micro_batches:
            found = self.engines.advantage(rows, "fresh").double().numpy()
            turns = np.concatenate([np.arange(len(row.states)) < len(row.turns) for row in rows])
            self._correlation.add(*(part[turns] for part in (found, self._exact.advantages(rows), fresh_shares(rows))))
        if self._steps % EVERY == 0:
            self.measures.append({"cycle": self._cycle, "step": self._steps, "correlation": self._correlation.value()})
            self._correlation = Correlation()

    def _replace(self, rows: Sequence[Row]) -> None:
        """Set the advantages that the actor's step would take from the critic."""
        if any(row.advantage is None for row in rows):
            exact = self._exact.advantages(rows).astype(np.float32)
            for row, part in zip(rows, np.split(exact, np.cumsum([len(row.states) for row in rows])[:-1]), strict=True):
                row.advantage = part


def run_case(case: str, folder: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Train the demo in this process and return its rows: correlations by critic step, and returns by evaluation."""
    own = [f"name={case}", f"runs_dir={folder}", "mode=inline", "learner.threads=1", *CASES[case], *settings]
    config = load_config("demo", own)
    ActorConfig.implementation = f"{__name__}:{MeasuredArcher.__name__}"
    MeasuredArcher.replaces, MeasuredArcher.measures = case == "exact", []
    with RunFolder.create(folder, case) as run:
        run_inline(config, run, resume=False)
        evaluations = [row for row in run.rows() if row["kind"] == "evaluation"]
    rows = [{"case": case, **found, "return": None} for found in MeasuredArcher.measures]
    for row in evaluations:
        rows.append({"case": case, "cycle": row.get("cycle"), "step": None, "correlation": None})
        rows[-1]["return"] = row["return_mean"]
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all cases")
    arguments = made.parse_args()
    short = ["cycles=1", "learner.clone.steps=100", "evaluation.episodes=32"] if arguments.quick else []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            say(f"case {case}")
            rows += run_case(case, Path(folder), [f"seed={arguments.seed}", *short, *arguments.set])
    print_table("Critic against exact values", COLUMNS, rows)
    say(f"written to {report('exact_critic', arguments, rows)}")


if __name__ == "__main__":
    main()
