"""The board on a real Ray cluster: order, publishers in other processes, metrics targets, a board that dies."""

import threading
import time
import urllib.request
from typing import Any

import psutil
import pytest
import ray

from archer.driver.board import BoardError, BoardFollower, BoardPublisher, start_board
from bench.chaos_run import can_cut, cut_off
from buffer.telemetry.endpoint import Process

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_follower_handles_every_event_once_in_order_and_drains_at_the_end() -> None:
    board = start_board()
    seen: list[dict[str, Any]] = []
    first = threading.Event()

    def handle(event: dict[str, Any]) -> None:
        seen.append(event)
        first.set()

    publisher = BoardPublisher(board)
    with BoardFollower(board, handle):
        publisher.publish({"kind": "step", "step": 0})
        assert first.wait(30)  # the event wakes the follower before the end does
        for step in range(1, 50):
            publisher.publish({"kind": "step", "step": step})
    assert [event["step"] for event in seen] == list(range(50))
    assert abs(seen[0]["time"] - time.time()) < 60
    ray.kill(board)


def listening(address: str) -> psutil.Process:
    """Return the process that listens at "host:port"."""
    port = int(address.rpartition(":")[2])
    found = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port)
    return psutil.Process(next(found).pid)


def test_a_broken_connection_loses_no_event_and_repeats_none() -> None:
    """The follower waits, and a publisher in another process goes on, when every connection of the board is cut."""
    if not can_cut():
        pytest.skip("connections cannot be cut here: it needs the rights of root, and `ss`")

    @ray.remote(num_cpus=0)
    def work(publisher: BoardPublisher) -> None:
        for step in range(200):
            publisher.publish({"kind": "step", "step": step})

    board = start_board()
    seen: list[int] = []
    started = threading.Event()

    def handle(event: dict[str, Any]) -> None:
        seen.append(event["step"])
        started.set()

    with BoardFollower(board, handle) as follower:
        working = work.remote(BoardPublisher(board))
        assert started.wait(60)
        assert cut_off(listening(follower.processes()[0].address))
        ray.get(working, timeout=60)
        BoardPublisher(board).publish({"kind": "step", "step": 200})
    assert seen == list(range(201))
    ray.kill(board)


def test_events_before_the_follower_are_kept() -> None:
    board = start_board()
    BoardPublisher(board).publish({"kind": "message", "text": "early"})
    seen: list[str] = []
    with BoardFollower(board, lambda event: seen.append(event["text"])):
        pass
    assert seen == ["early"]
    ray.kill(board)


def test_publisher_works_in_another_process_and_targets_are_replaced() -> None:
    @ray.remote(num_cpus=0)
    def work(publisher: BoardPublisher) -> None:
        publisher.publish({"kind": "message", "text": "from afar"})
        publisher.register_target("learner", "rank-0", "10.0.0.1:1")
        publisher.register_target("learner", "rank-0", "10.0.0.1:2")

    board = start_board()
    publisher = BoardPublisher(board)
    seen: list[str] = []
    with BoardFollower(board, lambda event: seen.append(event["text"])) as follower:
        assert [process.role for process in follower.processes()] == ["board"]
        publisher.publish({"kind": "message", "text": "here"})
        ray.get(work.remote(publisher), timeout=60)
    of_board, rank = follower.processes()
    assert rank == Process("learner", "rank-0", "10.0.0.1:2")
    page = urllib.request.urlopen(f"http://{of_board.address}/metrics", timeout=20).read().decode()
    assert 'archer_board_events_total{kind="message"} 2.0' in page
    assert seen == ["here", "from afar"]
    ray.kill(board)


def test_error_in_the_handler_reaches_the_run() -> None:
    board = start_board()

    def handle(event: dict[str, Any]) -> None:
        raise ZeroDivisionError("the handler's own")

    def follow() -> None:
        with BoardFollower(board, handle) as follower:
            follower.check()
            BoardPublisher(board).publish({"kind": "message", "text": "x"})
            assert isinstance(follower.done.exception(timeout=30), ZeroDivisionError)

    with pytest.raises(ZeroDivisionError):
        follow()
    ray.kill(board)


def test_dead_board_is_reported_on_both_sides() -> None:
    board = start_board()
    publisher = BoardPublisher(board)
    publisher.publish({"kind": "message", "text": "x"})
    follower = BoardFollower(board, lambda event: None).__enter__()
    ray.kill(board)
    with pytest.raises(BoardError, match="board is gone"):
        follower.done.result(timeout=30)
    with pytest.raises(BoardError, match="board is gone"):
        publisher.publish({"kind": "message", "text": "y"})
    with pytest.raises(BoardError, match="board is gone"):
        publisher.register_target("learner", "rank-0", "a:1")
