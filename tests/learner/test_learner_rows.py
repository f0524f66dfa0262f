"""Rows: samples grouped by episode, and their distribution over ranks."""

from __future__ import annotations

import numpy as np
import pytest
from learner_cases import make_row

from learner.errors import LearnerError
from learner.passes.rows import deal, rows_from_samples


def test_samples_of_one_episode_share_a_row() -> None:
    a, b = make_row(1).episode, make_row(2).episode
    rows = rows_from_samples([a, b, a, a], np.array([0, 3, 5, 0]))
    assert [(row.episode.episode_id, row.turns.tolist()) for row in rows] == [
        ("episode-1", [0, 5, 0]),
        ("episode-2", [3]),
    ]
    (whole,) = rows_from_samples([a], np.array([-1]))
    assert whole.turns.tolist() == [0, 1, 2, 3, 4, 5]
    assert whole.episode is a


@pytest.mark.parametrize(("count", "ranks", "micro_batch"), [(7, 2, 2), (3, 3, 1), (64, 1, 16), (5, 2, 64), (9, 4, 1)])
def test_every_rank_gets_as_many_micro_batches_and_every_row_once(count: int, ranks: int, micro_batch: int) -> None:
    rows = [make_row(seed) for seed in range(count)]
    dealt = deal(rows, ranks, micro_batch)
    assert len({len(share) for share in dealt}) == 1
    assert all(micro for share in dealt for micro in share)
    ids = [row.episode.episode_id for share in dealt for micro in share for row in micro]
    assert sorted(ids) == sorted(row.episode.episode_id for row in rows)


def test_fewer_rows_than_ranks_is_an_error_that_says_so() -> None:
    with pytest.raises(LearnerError, match="fewer than the 3 learner ranks"):
        deal([make_row(0), make_row(1)], 3, 8)
