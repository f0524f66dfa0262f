"""Write episodes that no policy of a run played: the folders of `archer record` and `archer import`.

DIR/  episodes.parquet  the episodes in the replay schema
      tokenizer/        the tokenizer of their tokens, unless `--model` named one
      summary.json      statistics, and how the episodes were made
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import envs
from archer.config.sections import TinyModelConfig
from archer.driver.demonstrations import texts
from archer.driver.model import make_tokenizer
from archer.errors import ConfigError
from archer.results.summary import bootstrap_interval
from buffer.archive import EPISODES_FILE
from buffer.atomic_files import write_atomic
from buffer.episodes.schema import EPISODE_SCHEMA, episodes_to_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTIAL = f".{EPISODES_FILE}.partial"
TOKENIZER = "tokenizer"
ROWS = 1000
"""Episodes that are rendered and written at a time, which limits the memory that their tokens take."""


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model's folder or hub name. Raises ConfigError."""
    from transformers import AutoTokenizer  # takes seconds to import

    folder = Path(model).expanduser()
    try:
        return AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"--model {model!r}: its tokenizer cannot be loaded: {first}") from error


def write_episodes(
    demonstrations: Sequence[envs.Demonstration],
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    summary: Mapping[str, Any],
    worker: str = "demonstrator",
    ids: str | None = None,
) -> str:
    """Write at least one episode into `folder`, which exists and is empty; return its report: statistics and path.

    Args:
        tokenizer: Encodes the episodes; None trains a tokenizer on them and saves it too.
        summary: Entries of summary.json beside the statistics.
        worker: Name of the player, in the episodes.
        ids: Prefix of the episode ids, in place of the demonstrator's ids.

    Raises RenderError if the tokenizer cannot encode an episode. A failure or Ctrl-C leaves the folder empty.
    """
    own = tokenizer is None
    try:
        tokenizer = _write(demonstrations, folder, tokenizer, worker, ids)
    except BaseException:
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
        (folder / PARTIAL).unlink(missing_ok=True)
        raise
    figures = _statistics(demonstrations)
    record = {**summary, "tokenizer": TOKENIZER if own else str(tokenizer.name_or_path), **figures}
    write_atomic(folder / "summary.json", json.dumps(record, indent=2, default=str) + "\n")
    success = "" if figures["success_rate"] is None else f"success {figures['success_rate']:.0%}, "
    return (
        f"return {figures['return_mean']:.2f} (95% {figures['return_low']:.2f} to {figures['return_high']:.2f}), "
        f"{success}{figures['mean_turns']:.1f} turns, {figures['episodes']:,} episodes\nwrote {folder / EPISODES_FILE}"
    )


def _write(
    demonstrations: Sequence[envs.Demonstration],
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None,
    worker: str,
    ids: str | None,
) -> PreTrainedTokenizerBase:
    """Write the episodes and, if `tokenizer` is None, a new tokenizer; return the tokenizer in use."""
    from actors.rendering.factory import make_renderer, render_demonstration

    if tokenizer is None:
        tokenizer = make_tokenizer(texts(list(demonstrations)), TinyModelConfig())
        tokenizer.save_pretrained(folder / TOKENIZER)
    renderer = make_renderer("auto", tokenizer)
    with pq.ParquetWriter(folder / PARTIAL, EPISODE_SCHEMA) as writer:
        for start in range(0, len(demonstrations), ROWS):
            part = demonstrations[start : start + ROWS]
            rows = [render_demonstration(demonstration, renderer) for demonstration in part]
            if ids is not None:
                rows = [replace(e, episode_id=f"{ids}-{start + i:06d}", worker=worker) for i, e in enumerate(rows)]
            writer.write_table(pa.Table.from_batches([episodes_to_batch(rows)]))
    (folder / PARTIAL).rename(folder / EPISODES_FILE)
    return tokenizer


def _statistics(demonstrations: Sequence[envs.Demonstration]) -> dict[str, Any]:
    """Return means over the episodes; returns are undiscounted, their interval is a 95% bootstrap of the mean."""
    returns = [demonstration.ret for demonstration in demonstrations]
    low, high = bootstrap_interval(returns)
    known = [demonstration.success for demonstration in demonstrations if demonstration.success is not None]
    return {
        "episodes": len(returns),
        "return_mean": float(np.mean(returns)),
        "return_low": low,
        "return_high": high,
        "success_rate": float(np.mean(known)) if known else None,
        "mean_turns": float(np.mean([len(demonstration.actions) for demonstration in demonstrations])),
    }
