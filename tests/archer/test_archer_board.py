"""The board on a real Ray cluster: order, long polls, publishers in other processes, a board that dies."""

import threading
import time
from typing import Any

import pytest
import ray

from archer.driver.board import BoardError, BoardFollower, BoardPublisher, start_board

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_events_come_in_order_with_number_and_time() -> None:
    board = start_board()
    publisher = BoardPublisher(board)
    for step in range(200):
        publisher.publish({"kind": "step", "step": step})
    events = ray.get(board.next.remote(0, 5.0), timeout=30)
    assert [event["step"] for event in events] == list(range(200))
    assert [event["sequence"] for event in events] == list(range(200))
    assert abs(events[0]["time"] - time.time()) < 60
    assert [event["step"] for event in ray.get(board.next.remote(198, 5.0), timeout=30)] == [198, 199]
    ray.kill(board)


def test_reader_waits_for_the_event_and_not_longer() -> None:
    board = start_board()
    ray.get(board.targets.remote(), timeout=60)
    assert ray.get(board.next.remote(0, 0.05), timeout=30) == []
    waiting = [board.next.remote(0, 60.0) for _ in range(3)]
    assert ray.wait(waiting, timeout=0.3)[0] == []
    BoardPublisher(board).publish({"kind": "message", "text": "hello"})
    started = time.monotonic()
    answers = ray.get(waiting, timeout=30)
    assert time.monotonic() - started < 20
    assert [[event["text"] for event in answer] for answer in answers] == [["hello"]] * 3
    ray.kill(board)


def test_old_events_are_dropped_and_the_gap_shows() -> None:
    board = start_board(capacity=3)
    publisher = BoardPublisher(board)
    for step in range(5):
        publisher.publish({"kind": "step", "step": step})
    assert [event["sequence"] for event in ray.get(board.next.remote(0, 5.0), timeout=30)] == [2, 3, 4]
    ray.kill(board)


def test_publisher_travels_to_another_process_and_targets_are_replaced() -> None:
    @ray.remote(num_cpus=0)
    def work(publisher: BoardPublisher) -> None:
        publisher.publish({"kind": "message", "text": "from afar"})
        publisher.register_target("learner", "rank-0", "10.0.0.1:1")
        publisher.register_target("learner", "rank-0", "10.0.0.1:2")

    board = start_board()
    publisher = BoardPublisher(board)
    publisher.publish({"kind": "message", "text": "here"})
    ray.get(work.remote(publisher), timeout=60)
    assert ray.get(board.targets.remote(), timeout=30) == [("learner", "rank-0", "10.0.0.1:2")]
    assert {event["text"] for event in ray.get(board.next.remote(0, 5.0), timeout=30)} == {"here", "from afar"}
    ray.get(board.remove_target.remote("learner", "rank-0"), timeout=30)
    assert ray.get(board.targets.remote(), timeout=30) == []
    ray.kill(board)


def test_follower_hands_on_every_event_once_and_drains_at_the_end() -> None:
    board = start_board()
    seen: list[int] = []
    first = threading.Event()

    def handle(event: dict[str, Any]) -> None:
        seen.append(event["step"])
        first.set()

    publisher = BoardPublisher(board)
    with BoardFollower(board, handle, poll_s=60.0):
        publisher.publish({"kind": "step", "step": 0})
        assert first.wait(30)
        for step in range(1, 50):
            publisher.publish({"kind": "step", "step": step})
    assert seen == list(range(50))
    ray.kill(board)


def test_error_in_the_handler_reaches_the_run() -> None:
    board = start_board()
    failed = threading.Event()

    def handle(event: dict[str, Any]) -> None:
        failed.set()
        raise ZeroDivisionError("the handler's own")

    follower = BoardFollower(board, handle)
    follower.__enter__()
    follower.check()
    BoardPublisher(board).publish({"kind": "message", "text": "x"})
    assert failed.wait(30)
    with pytest.raises(ZeroDivisionError):
        follower.close()
    with pytest.raises(ZeroDivisionError):
        follower.check()
    ray.kill(board)


def test_dead_board_is_a_sentence() -> None:
    board = start_board()
    publisher = BoardPublisher(board)
    publisher.publish({"kind": "message", "text": "x"})
    ray.kill(board)
    with pytest.raises(BoardError, match="board is gone"):
        publisher.publish({"kind": "message", "text": "y"})
    with pytest.raises(BoardError, match="board is gone"):
        publisher.register_target("learner", "rank-0", "a:1")
