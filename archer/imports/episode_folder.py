"""Write episodes that no policy of a run played: the folders of `archer record` and `archer import`.

DIR/  episodes.parquet  the episodes in the replay schema
      tokenizer/        the tokenizer of their tokens, unless `--model` named one
      summary.json      statistics, and how the episodes were made
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

import envs
from archer.config.sections import TinyModelConfig
from archer.driver.demonstrations import texts
from archer.driver.model import make_tokenizer
from archer.errors import ConfigError
from archer.results.statistics import EvalResult
from buffer.archive import EPISODES_FILE
from buffer.atomic_files import write_atomic
from buffer.episodes.schema import EPISODE_SCHEMA, episodes_to_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer"
ROWS = 1000
"""Episodes that are rendered and written at a time, which limits the memory that their tokens take."""


def load_tokenizer(model: str | None) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of `--model`, a folder or hub name; None without `--model`. Raises ConfigError."""
    if model is None:
        return None
    from transformers import AutoTokenizer  # takes seconds to import

    folder = Path(model).expanduser()
    try:
        return AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"--model {model!r}: its tokenizer cannot be loaded: {first}") from error


def write_episodes(
    demonstrations: Sequence[envs.Demonstration],
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    summary: Mapping[str, Any],
    imported: str | None = None,
) -> str:
    """Write at least one episode into `folder`, which exists and is empty; return its report: statistics and path.

    Args:
        tokenizer: Encodes the episodes; None trains a tokenizer on them and saves it too.
        summary: Entries of summary.json beside the statistics.
        imported: Prefix of the ids of imported episodes; None keeps the ids of scripted episodes.

    Raises RenderError if the tokenizer cannot encode an episode.
    """
    from actors.config import RolloutConfig
    from actors.rendering.context import episode_context
    from actors.rendering.factory import make_renderer, render_demonstration  # imports transformers

    own = tokenizer is None
    if tokenizer is None:
        tokenizer = make_tokenizer(texts(list(demonstrations)), TinyModelConfig())
        tokenizer.save_pretrained(folder / TOKENIZER)
    rollout = RolloutConfig()
    renderer = make_renderer(rollout, tokenizer)
    context = episode_context(rollout, renderer.tools)
    part, target = folder / f".{EPISODES_FILE}.part", folder / EPISODES_FILE
    with pq.ParquetWriter(part, EPISODE_SCHEMA) as writer:
        for start in range(0, len(demonstrations), ROWS):
            part_of = demonstrations[start : start + ROWS]
            rows = [render_demonstration(episode, renderer, context) for episode in part_of]
            if imported is not None:
                ids = (f"{imported}-{number:06d}" for number in count(start))
                rows = [replace(row, episode_id=next(ids), worker="import") for row in rows]
            writer.write_batch(episodes_to_batch(rows))
    os.replace(part, target)
    mean = _statistics(demonstrations)
    record = {**summary, "tokenizer": TOKENIZER if own else str(tokenizer.name_or_path), **mean}
    write_atomic(folder / "summary.json", json.dumps(record, indent=2, default=str) + "\n")
    success = "" if mean["success_rate"] is None else f"success {mean['success_rate']:.0%}, "
    return (
        f"return {mean['return_mean']:.2f} (95% {mean['return_low']:.2f} to {mean['return_high']:.2f}), {success}"
        f"{mean['mean_turns']:.1f} turns, {mean['episodes']:,} episodes\nwrote {target}"
    )


def _statistics(demonstrations: Sequence[envs.Demonstration]) -> dict[str, Any]:
    """Return the statistics of `EvalResult` that these episodes have."""
    columns = {
        "returns": [demonstration.ret for demonstration in demonstrations],
        "successes": [demonstration.success for demonstration in demonstrations],
        "turns": [len(demonstration.actions) for demonstration in demonstrations],
        "invalid_actions": [0] * len(demonstrations),
    }
    result = EvalResult.from_event({"name": "", **columns}, env=demonstrations[0].env)
    kept = ("episodes", "return_mean", "return_low", "return_high", "success_rate", "mean_turns")
    return {key: getattr(result, key) for key in kept}
