"""A scorer picks one of several candidates."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from actor_cases import fresh_actions

from actors.errors import ChooserLost
from actors.rollout.critic_choice import ActorChooser
from buffer.rollout_records import FreshActions


class LongestFirst:
    """A scorer that picks the longest action and records the size of each batch."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.batches: list[int] = []
        self.choose = SimpleNamespace(remote=lambda states, candidates: self._choose(states, candidates))
        self._delay_s = delay_s

    async def _choose(self, states: Any, candidates: Any) -> list[int]:
        self.batches.append(len(states))
        await asyncio.sleep(self._delay_s)
        return [int(np.diff(actions.offsets).argmax()) for actions in candidates]


def _actions(*lengths: int) -> FreshActions:
    return fresh_actions([[1] * n for n in lengths])


def test_each_state_gets_its_own_answer_and_concurrent_questions_share_a_call() -> None:
    scorer = LongestFirst(delay_s=0.01)
    chooser = ActorChooser(scorer, 3, timeout_s=5.0)  # type: ignore[arg-type]

    async def play() -> list[FreshActions]:
        return await asyncio.gather(*(chooser.choose([i], _actions(1, 2 + i, 1)) for i in range(20)))

    assert [len(action.tokens) for action in asyncio.run(play())] == list(range(2, 22))
    assert sum(scorer.batches) == 20
    assert len(scorer.batches) <= 2


def test_a_silent_scorer_is_named() -> None:
    chooser = ActorChooser(LongestFirst(delay_s=60.0), 2, timeout_s=0.05)  # type: ignore[arg-type]
    with pytest.raises(ChooserLost, match="did not answer within"):
        asyncio.run(chooser.choose([1], _actions(1, 2)))
