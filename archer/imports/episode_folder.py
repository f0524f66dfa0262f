"""Folders of episodes that no policy of ours played: `archer demos` and `archer import` write them.

DIR/  episodes.parquet  the episodes in the replay schema, for `demonstrations.files`, pandas, DuckDB
      tokenizer/        the tokenizer that their tokens are of, unless `--model` named one
      summary.json      figures and how they came to be

Whoever imports the episodes tells them again in tokens of their own, from the messages. The tokens here are for those
who read the file as it is: of a model's tokenizer where one is named, else of one trained on these very texts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

import envs
from archer.config.models import TinyModelConfig
from archer.driver.demonstrations import texts
from archer.driver.model import make_tokenizer
from archer.driver.run_folder import write_atomic
from archer.errors import ConfigError
from archer.results.summary import bootstrap_interval
from buffer.archive import EPISODES_FILE
from buffer.episodes.schema import episodes_to_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTIAL = f".{EPISODES_FILE}.partial"
TOKENIZER = "tokenizer"
SUMMARY = "summary.json"
ROWS = 1000
"""Episodes rendered and written at a time, which bounds the memory that their tokens take."""


@dataclass(frozen=True)
class Figures:
    """Of a set of episodes. Returns are undiscounted; the interval is a 95% bootstrap of their mean."""

    episodes: int
    return_mean: float
    return_low: float
    return_high: float
    success_rate: float | None
    mean_turns: float

    @classmethod
    def of(cls, demonstrations: Sequence[envs.Demonstration]) -> Figures:
        returns = [demonstration.ret for demonstration in demonstrations]
        low, high = bootstrap_interval(returns)
        known = [demonstration.success for demonstration in demonstrations if demonstration.success is not None]
        turns = [len(demonstration.actions) for demonstration in demonstrations]
        success = float(np.mean(known)) if known else None
        return cls(len(returns), float(np.mean(returns)), low, high, success, float(np.mean(turns)))

    def __str__(self) -> str:
        success = "" if self.success_rate is None else f"success {self.success_rate:.0%}, "
        return (
            f"return {self.return_mean:.2f} (95% {self.return_low:.2f} to {self.return_high:.2f}), {success}"
            f"{self.mean_turns:.1f} turns, {self.episodes:,} episodes"
        )


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder or hub name. Raises ConfigError."""
    from transformers import AutoTokenizer  # late: takes seconds to import

    folder = Path(model).expanduser()
    try:
        return AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"--model {model!r}: its tokenizer can't be loaded: {first}") from error


def write_episodes(
    demonstrations: Sequence[envs.Demonstration],
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    summary: Mapping[str, Any],
    worker: str = "demonstrator",
    ids: str | None = None,
) -> Figures:
    """Write `demonstrations` (one at least) into `folder`, which is there and empty; the summary last.

    tokenizer: None trains one on the episodes' own texts and writes it beside them.
    worker, ids: who is said to have played, and what the ids begin with, where it is not the demonstrator.
    Raises RenderError where an episode can't be told in that tokenizer's terms.
    """
    own = tokenizer is None
    try:
        tokenizer = _write(demonstrations, folder, tokenizer, worker, ids)
    except BaseException:  # Ctrl-C too: half a folder would be in the way of the next try
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
        (folder / PARTIAL).unlink(missing_ok=True)
        raise
    figures = Figures.of(demonstrations)
    record = {**summary, "tokenizer": TOKENIZER if own else str(tokenizer.name_or_path), **vars(figures)}
    write_atomic(folder / SUMMARY, json.dumps(record, indent=2, default=str) + "\n")
    return figures


def _write(
    demonstrations: Sequence[envs.Demonstration],
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None,
    worker: str,
    ids: str | None,
) -> PreTrainedTokenizerBase:
    """The episodes and, where none is given, the tokenizer; answers the tokenizer."""
    from actors.rollout.renderer import make_renderer, render_demonstration

    if tokenizer is None:
        tokenizer = make_tokenizer(texts(list(demonstrations)), TinyModelConfig())
        tokenizer.save_pretrained(folder / TOKENIZER)
    renderer = make_renderer("auto", tokenizer)
    with pq.ParquetWriter(folder / PARTIAL, episodes_to_batch([]).schema) as writer:
        for start in range(0, len(demonstrations), ROWS):
            rows = [
                render_demonstration(demonstration, renderer) for demonstration in demonstrations[start : start + ROWS]
            ]
            if ids is not None:
                rows = [replace(e, episode_id=f"{ids}-{start + i:06d}", worker=worker) for i, e in enumerate(rows)]
            writer.write_table(pa.Table.from_batches([episodes_to_batch(rows)]))
    (folder / PARTIAL).rename(folder / EPISODES_FILE)
    return tokenizer


def print_written(console: Console, figures: Figures, folder: Path) -> None:
    """The figures, and where the episodes lie."""
    console.print(str(figures), highlight=False)
    console.print(f"wrote {folder / EPISODES_FILE}", soft_wrap=True, highlight=False, markup=False)
