"""The gate before the workers: order, room, and cancelled requests."""

from __future__ import annotations

import asyncio

import pytest

from actors.pool.fresh_requests import Gate


def test_requests_pass_in_order_and_within_the_room() -> None:
    async def play() -> tuple[list[str], int]:
        gate, passed, most = Gate(lambda: 10), [], 0
        inside = 0

        async def one(name: str, size: int) -> None:
            nonlocal inside, most
            async with gate.through(size):
                passed.append(name)
                inside += size
                most = max(most, inside)
                await asyncio.sleep(0.01)
                inside -= size

        # `c` would fit beside `a`, but `b` came before it; `d` is larger than the room.
        await asyncio.gather(one("a", 6), one("b", 6), one("c", 2), one("d", 50), one("e", 1))
        return passed, most

    passed, most = asyncio.run(play())
    assert passed == ["a", "b", "c", "d", "e"]
    assert most == 50


def test_the_room_may_grow() -> None:
    async def play() -> list[str]:
        room, passed = 1, []
        gate = Gate(lambda: room)

        async def one(name: str) -> None:
            async with gate.through(1):
                passed.append(name)
                if name == "a":
                    await asyncio.sleep(0.01)
                else:
                    await together.wait()

        together = asyncio.Barrier(3)
        first = asyncio.create_task(one("a"))
        rest = [asyncio.create_task(one(name)) for name in "bcd"]
        await asyncio.sleep(0)
        room = 3
        await asyncio.wait_for(asyncio.gather(first, *rest), 5)
        return passed

    assert asyncio.run(play()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("inside", [True, False])
def test_who_gives_up_leaves_the_gate_open(inside: bool) -> None:
    async def play() -> None:
        gate, hold = Gate(lambda: 1), asyncio.Event()

        async def one() -> None:
            async with gate.through(1):
                await hold.wait()

        first = asyncio.create_task(one())
        second = asyncio.create_task(one())
        await asyncio.sleep(0.01)
        (first if inside else second).cancel()
        third = asyncio.create_task(one())
        hold.set()
        await asyncio.wait_for(asyncio.gather(first, second, third, return_exceptions=True), 5)
        assert third.exception() is None

    asyncio.run(play())
