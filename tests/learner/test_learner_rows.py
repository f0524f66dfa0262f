"""Rows: grouping of samples, fresh actions that must land at their own state, and dealing out to ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from learner_cases import make_row

from learner.errors import LearnerError
from learner.rows import Row, attach_fresh, deal, prompts, rows_from_samples


def _episode(row: Row) -> Any:
    return SimpleNamespace(
        episode_id=row.episode_id,
        tokens=row.tokens,
        action_start=row.action_start,
        action_end=row.action_end,
        reward=row.reward,
        terminated=row.terminated,
        turns=len(row.reward),
        logprobs=row.logprobs,
        versions=row.versions,
        seed=7,
    )


def test_samples_of_one_episode_share_a_row() -> None:
    a, b = _episode(make_row(1)), _episode(make_row(2))
    rows = rows_from_samples([a, b, a, a], np.array([0, 3, 5, 0]))
    assert [(row.episode_id, row.turns.tolist()) for row in rows] == [("episode-1", [0, 5, 0]), ("episode-2", [3])]
    (whole,) = rows_from_samples([a], np.array([-1]))
    assert whole.turns.tolist() == [0, 1, 2, 3, 4, 5]
    assert whole.seed == 7


def test_prompts_are_the_states_without_their_actions() -> None:
    row = make_row(4)
    for turn, prompt in zip(row.turns, prompts([row]), strict=True):
        np.testing.assert_array_equal(prompt, row.tokens[: row.action_start[turn]])


def test_fresh_actions_land_at_the_state_they_were_written_for() -> None:
    """The answer says in its tokens which request it answers: prompt p, action k has tokens [p, k, ...]."""
    rows = [make_row(seed, fresh=0) for seed in range(4)]
    asked, n = prompts(rows), 3
    actions = [[p, k] + [9] * ((p + k) % 3) for p in range(len(asked)) for k in range(n)]
    offsets = np.cumsum([0, *map(len, actions)])
    flat = np.array([token for action in actions for token in action], dtype=np.int32)
    attach_fresh(
        rows,
        SimpleNamespace(tokens=flat, offsets=offsets, logprobs=-flat.astype(np.float32), versions=flat + 1, n=n),
    )
    index = 0
    for row in rows:
        assert len(row.fresh) == len(row.turns)
        for sample in range(len(row.turns)):
            for k in range(n):
                assert row.fresh[sample][k][:2].tolist() == [index, k]
                np.testing.assert_array_equal(row.fresh_logprobs[sample][k], -row.fresh[sample][k])
                np.testing.assert_array_equal(row.fresh_versions[sample][k], row.fresh[sample][k] + 1)
            index += 1


def test_an_answer_to_another_question_is_refused() -> None:
    rows = [make_row(1, fresh=0)]
    short = SimpleNamespace(tokens=np.zeros(1), offsets=np.array([0, 1]), logprobs=None, versions=None, n=2)
    with pytest.raises(LearnerError, match="got 1 actions"):
        attach_fresh(rows, short)


@pytest.mark.parametrize(("count", "ranks", "micro_batch"), [(7, 2, 2), (3, 3, 1), (64, 1, 16), (5, 2, 64), (9, 4, 1)])
def test_every_rank_gets_as_many_micro_batches_and_every_row_once(count: int, ranks: int, micro_batch: int) -> None:
    rows = [make_row(seed) for seed in range(count)]
    dealt = deal(rows, ranks, micro_batch)
    assert len({len(share) for share in dealt}) == 1
    assert all(micro for share in dealt for micro in share)
    ids = [row.episode_id for share in dealt for micro in share for row in micro]
    assert sorted(ids) == sorted(row.episode_id for row in rows)


def test_fewer_rows_than_ranks_is_an_error_that_says_so() -> None:
    with pytest.raises(LearnerError, match="fewer than the 3 learner ranks"):
        deal([make_row(0), make_row(1)], 3, 8)
