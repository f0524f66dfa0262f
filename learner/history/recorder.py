"""What the learner calls to keep episodes and values in the run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from buffer.rollout_records import PlayedEpisode
from learner.history.config import HistoryConfig
from learner.history.episodes import Stage, episode_table
from learner.history.folder import EPISODES, NEWEST, VALUES, HistoryFolder, drop_before
from learner.history.values import TurnValues

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class Recorder:
    """Writes the tables of one rank. A disk that refuses them ends the recording with a warning, and never the run."""

    def __init__(self, config: HistoryConfig, run: Path, tokenizer: PreTrainedTokenizerBase, rank: int) -> None:
        self._config = config
        # Episodes take more room than values.
        self._folder = {
            EPISODES: HistoryFolder(run, config.max_mb * 3 // 4 * 2**20),
            VALUES: HistoryFolder(run, max(config.max_mb // 4, 1) * 2**20),
            NEWEST: HistoryFolder(run, max(config.max_mb // 4, 1) * 2**20),
        }
        self._run = run
        self._tokenizer = tokenizer
        self._rank = rank
        self._refused = False

    def every(self, episodes: int, *, evaluation: bool = False) -> int:
        """Return k if the limit keeps every k-th of `episodes` episodes; 0 if it keeps none."""
        kept = self._config.evaluation_episodes if evaluation else self._config.episodes_per_cycle
        return -(-episodes // kept) if kept else 0

    def training(self, kept: Sequence[PlayedEpisode], cycle: int) -> None:
        """Keep episodes that cycle `cycle`, from 1, has collected."""
        self._write(EPISODES, cycle, "training", lambda: self._table(kept, cycle, None, False), bool(kept))

    def evaluation(self, kept: Sequence[PlayedEpisode], name: str, cycle: int, *, greedy: bool) -> None:
        """Keep episodes of the evaluation `name`, after `cycle` finished cycles."""
        self._write(EPISODES, cycle, f"eval-{name}", lambda: self._table(kept, cycle, name, greedy), bool(kept))

    def values(self, used: TurnValues | None, cycle: int, version: int) -> None:
        """Keep what the steps of cycle `cycle`, from 1, have used."""
        table = None if used is None else used.take(cycle, version)
        if table is not None:
            self._write(VALUES, cycle, f"rank-{self._rank}", lambda: table, True)

    def newest(self, values: TurnValues | None, cycle: int, version: int) -> None:
        """Keep how the critic of `cycle` finished cycles values kept episodes, in place of what earlier ones did."""
        table = None if values is None else values.take(cycle, version)
        if table is not None:
            self._write(NEWEST, cycle, f"rank-{self._rank}", lambda: table, True)
            drop_before(self._run, NEWEST, cycle)

    def _table(self, kept: Sequence[PlayedEpisode], cycle: int, name: str | None, greedy: bool) -> pa.Table:
        stage: Stage = "training" if name is None else "evaluation"
        return episode_table(kept, self._tokenizer, stage=stage, cycle=cycle, evaluation=name, greedy=greedy)

    def _write(self, table: str, cycle: int, name: str, rows: Callable[[], pa.Table], any_row: bool) -> None:
        if not any_row or self._refused:
            return
        try:
            self._folder[table].write(table, cycle, name, rows())
        except OSError as error:
            self._refused = True
            logger.warning("history/ cannot be written (%s); this run keeps no more episodes and values", error)
