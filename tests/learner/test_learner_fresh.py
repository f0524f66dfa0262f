"""Fresh actions: each sample gets its own actions of its state, for every grouping of the requests."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from learner_cases import make_row

from learner.errors import LearnerError
from learner.feeding.fresh_actions import FreshSupply
from learner.passes.rows import Row


class Engines:
    """Returns actions that identify their state: [length of the state, its last token, a serial number]."""

    def __init__(self, *, short: bool = False) -> None:
        self.asked: list[list[tuple[bytes, int]]] = []
        self._short = short
        self._serial = 0

    def request(self, prompts: list[np.ndarray], n: np.ndarray, *, logprobs: bool = True) -> Future[Any]:
        self.asked.append([(prompt.tobytes(), int(count)) for prompt, count in zip(prompts, n, strict=True)])
        actions = []
        for prompt, count in zip(prompts, n, strict=True):
            for _ in range(count):
                actions.append([len(prompt), int(prompt[-1]), self._serial] + [9] * (self._serial % 3))
                self._serial += 1
        if self._short:
            actions.pop()
        flat = np.array([token for action in actions for token in action], dtype=np.int32)
        answer: Future[Any] = Future()
        answer.set_result(
            SimpleNamespace(
                tokens=flat,
                offsets=np.cumsum([0, *map(len, actions)]),
                logprobs=-flat.astype(np.float32) if logprobs else np.empty(0, np.float32),
                versions=flat + 1,
                counts=n,
            )
        )
        return answer


def _row(seed: int, turns: list[int]) -> Row:
    return Row(make_row(seed).episode, np.array(turns, dtype=np.int32))


def _steps() -> list[list[Row]]:
    """Three steps that share states, one of them with a turn that was drawn twice."""
    return [[_row(1, [0, 5, 0]), _row(2, [3])], [_row(2, [3, 1])], [_row(1, [0, 5]), _row(2, [3])]]


def test_fresh_actions_land_at_their_state_and_none_serves_twice() -> None:
    engines, steps, n = Engines(), _steps(), 3
    supply = FreshSupply(engines, steps, n, logprobs=True)  # type: ignore[arg-type]
    serials = []
    for rows in steps:
        supply.attach(rows, 1.0)
        for row in rows:
            assert row.fresh is not None
            assert row.fresh.counts.tolist() == [n] * len(row.turns)
            np.testing.assert_array_equal(row.fresh.logprobs, -row.fresh.tokens)
            np.testing.assert_array_equal(row.fresh.versions, row.fresh.tokens + 1)
            for sample, turn in enumerate(row.turns):
                end = row.episode.action_start[turn]
                actions = row.fresh_at(sample)
                assert len(actions) == n
                for action in actions:
                    assert action[:2].tolist() == [end, row.episode.tokens[end - 1]]
                    serials.append(int(action[2]))
    assert sorted(serials) == list(range(9 * n))


def test_a_state_is_asked_for_once_with_the_first_step_that_needs_it() -> None:
    engines, steps = Engines(), _steps()
    FreshSupply(engines, steps, 2, logprobs=False)  # type: ignore[arg-type]
    one, two = _row(1, []), _row(2, [])

    def state(row: Row, turn: int) -> bytes:
        return row.episode.tokens[: row.episode.action_start[turn]].tobytes()

    assert engines.asked == [
        [(state(one, 0), 6), (state(one, 5), 4), (state(two, 3), 6)],
        [(state(two, 1), 2)],
    ]


def test_logprobs_are_there_only_where_they_were_asked_for() -> None:
    rows = [_row(1, [2, 4])]
    FreshSupply(Engines(), [rows], 1, logprobs=False).attach(rows, 1.0)  # type: ignore[arg-type]
    fresh = rows[0].fresh
    assert fresh is not None
    assert len(fresh.versions) == len(fresh.tokens) > 0
    assert fresh.logprobs.size == 0


def test_an_answer_to_another_question_is_refused() -> None:
    rows = [_row(1, [0, 1])]
    supply = FreshSupply(Engines(short=True), [rows], 2, logprobs=True)  # type: ignore[arg-type]
    with pytest.raises(LearnerError, match="asked the engines for 4 fresh actions and got 3"):
        supply.attach(rows, 1.0)


def test_engines_that_never_answer_are_waited_for_so_long() -> None:
    rows = [_row(1, [0])]
    silent = SimpleNamespace(request=lambda *_, **__: Future())
    with pytest.raises(TimeoutError):
        FreshSupply(silent, [rows], 1, logprobs=True).attach(rows, 0.01)  # type: ignore[arg-type]
