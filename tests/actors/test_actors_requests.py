"""Requests for actions, batching of concurrent calls, and the lazy front door."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from actors.errors import ActorError
from actors.rollout.action_request import ActionRequest
from actors.rollout.coalescer import Coalescer


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_a_request_splits_into_parts_of_about_as_many_tokens(parts: int) -> None:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 99, rng.integers(1, 30)).astype(np.int32) for _ in range(20)]
    counts = rng.integers(1, 5, 20)
    shares = ActionRequest.of(prompts, counts, True).split(parts)
    assert [state for share in shares for state in share.states()] == [prompt.tolist() for prompt in prompts]
    assert np.concatenate([share.counts for share in shares]).tolist() == counts.tolist()
    assert 1 <= len(shares) <= parts
    total = sum(map(len, prompts))
    assert all(len(share.tokens) <= total / parts + 30 for share in shares)


def test_a_request_without_states_or_actions_is_rejected() -> None:
    with pytest.raises(ActorError, match="no states"):
        ActionRequest.of([], 1, True)
    with pytest.raises(ActorError, match="0 actions"):
        ActionRequest.of([np.zeros(2, np.int32)] * 2, np.array([1, 0]), True)


def test_concurrent_items_share_calls_and_a_failed_call_fails_its_items_only() -> None:
    batches: list[list[int]] = []

    async def call(items: list[int]) -> list[int]:
        batches.append(items)
        await asyncio.sleep(0)
        if 13 in items:
            raise ValueError("13")
        return [10 * item for item in items]

    async def play() -> None:
        coalescer = Coalescer(call)
        assert await asyncio.gather(*(coalescer.submit(i) for i in range(5))) == [0, 10, 20, 30, 40]
        outcomes = await asyncio.gather(*(coalescer.submit(i) for i in (12, 13)), return_exceptions=True)
        assert [isinstance(outcome, ValueError) for outcome in outcomes] == [True, True]
        assert await coalescer.submit(7) == 70

    asyncio.run(play())
    assert batches == [[0, 1, 2, 3, 4], [12, 13], [7]]


def test_importing_the_front_door_imports_no_framework() -> None:
    code = (
        "import sys, actors; print(sorted({'vllm', 'ray', 'torch'} & set(sys.modules))); "
        "print(actors.PoolClient.__module__)"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    assert printed.stdout.splitlines() == ["[]", "actors.pool.client"]
