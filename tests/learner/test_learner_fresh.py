"""Fresh actions: each sample gets its own actions of its state, for every grouping of the requests."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from learner_cases import flat_actions, make_row

from learner.errors import LearnerError
from learner.feeding.fresh_actions import FreshSupply, SharedActions
from learner.passes.rows import Row, fresh_shares, whole_episodes


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


@pytest.mark.parametrize(("end", "counted"), [("set_result", [16, 2]), ("cancel", [16]), ("set_exception", [16])])
def test_only_answered_requests_are_counted(end: str, counted: list[int]) -> None:
    answers: list[Future[Any]] = []

    def request(*_: Any, **__: Any) -> Future[Any]:
        answers.append(Future())
        return answers[-1]

    drawn: list[int] = []
    supply = FreshSupply(SimpleNamespace(request=request), _steps(), 2, logprobs=True)  # type: ignore[arg-type]
    supply.report_drawn(drawn.append)
    answers[0].set_result(None)
    assert drawn == [16]
    arguments = {"set_result": [None], "set_exception": [RuntimeError("all engines restarted")]}
    getattr(answers[1], end)(*arguments.get(end, []))
    assert drawn == counted


class Repeating(Engines):
    """Returns the actions [1], [2] and [1] in turn at every state."""

    def request(self, prompts: list[np.ndarray], n: np.ndarray, *, logprobs: bool = True) -> Future[Any]:
        self.asked.append([(prompt.tobytes(), int(count)) for prompt, count in zip(prompts, n, strict=True)])
        actions = [[(1, 2, 1)[k % 3]] for count in n for k in range(count)]
        answer: Future[Any] = Future()
        answer.set_result(flat_actions([actions], -4.0))
        return answer


def test_shared_actions_are_asked_for_once_and_merged() -> None:
    """Each state is requested once for all steps and supplies, also the one after the last turn."""
    engines, steps = Repeating(), _steps()
    last = _row(2, [0, 1, 2, 3, 4, 5])
    last.bootstraps = True
    shared = SharedActions()
    for rows in (*steps, [last]):
        FreshSupply(engines, [rows], 3, logprobs=True, shared=shared).attach(rows, 1.0)  # type: ignore[arg-type]
    asked = [prompt for request in engines.asked for prompt, count in request if count == 3]
    assert len(asked) == len(set(asked)) == len({*((1, t) for t in (0, 5)), *((2, t) for t in range(7))})
    assert last.episode.tokens.tobytes() in asked
    fresh = steps[0][0].fresh
    assert fresh is not None
    assert fresh.counts.tolist() == [2, 2, 2]
    assert fresh.tokens.tolist() == [1, 2] * 3
    np.testing.assert_allclose(fresh.shares, [2 / 3, 1 / 3] * 3)
    np.testing.assert_allclose(fresh_shares([steps[0][0]]), [[2 / 3, 1 / 3]] * 3)


def test_shared_actions_whose_request_failed_are_asked_for_again() -> None:
    engines, shared, rows = Repeating(), SharedActions(), [_row(1, [0])]
    failed: Future[Any] = Future()
    failed.set_exception(RuntimeError("all engines restarted"))
    shared.stock[rows[0].episode.episode_id, 0] = (failed, 0)
    FreshSupply(engines, [rows], 3, logprobs=True, shared=shared).attach(rows, 1.0)  # type: ignore[arg-type]
    assert len(engines.asked) == 1


@pytest.mark.parametrize(("terminated", "window", "turns"), [(True, 9, 6), (False, 1000, 6), (False, 9, 5)])
def test_an_episode_bootstraps_from_the_last_state_that_leaves_room_for_an_action(
    terminated: bool, window: int, turns: int
) -> None:
    row = make_row(3, terminated=terminated)
    (whole,) = whole_episodes([row], window)
    assert (whole.turns.tolist(), whole.bootstraps) == (list(range(turns)), not terminated)
    assert len(whole.states) == turns + (not terminated)
    assert whole_episodes([make_row(3, turns=1, terminated=False)], 3) == []
