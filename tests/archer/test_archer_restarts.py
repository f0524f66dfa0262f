"""A learner rank that dies: what counts as a death, how often the ranks restart, and where a run says it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError
from rich.console import Console

from actors.errors import PoolUnreachable, WorkersLostError
from archer.config.models import RunConfig
from archer.driver import learner_job
from archer.driver.journal import Journal
from archer.driver.learner_job import Failure, failure_of, train
from archer.driver.progress import Progress
from archer.driver.rank_actors import SilentRankError
from archer.driver.run_folder import RunFolder
from archer.errors import RunError
from archer.results.summary import summarise
from learner.engine.checkpoint_folders import begin, commit
from learner.errors import NonFiniteLossError
from learner.train_args import TrainArgs

GLOO = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:41033")


def raised(error: Exception) -> Exception:
    """Return what a call of an actor raises in the driver if the method raises `error`."""
    return RayTaskError("run", "Traceback ...", error).as_instanceof_cause()


def lost_pool() -> Exception:
    """Return an error of ours that the death of another actor caused: ranks that restart would meet it again."""
    error = WorkersLostError("the pool has ended")
    error.__cause__ = ActorDiedError()
    return error


@pytest.mark.parametrize(
    ("failures", "message", "is_death"),
    [
        ({1: ActorDiedError()}, "learner rank 1 died", True),
        ({0: raised(GLOO), 1: ActorDiedError()}, "learner rank 1 died", True),
        ({1: ActorDiedError(), 0: ActorDiedError()}, "learner ranks 0, 1 died", True),
        ({0: raised(GLOO)}, f"learner rank 0 lost another rank: RuntimeError: {GLOO}", True),
        (
            {1: OutOfMemoryError("...")},
            "learner rank 1 died, because the machine ran out of memory",
            True,
        ),
        ({1: SilentRankError("learner rank 1 has not answered")}, "learner rank 1 has not answered", True),
        ({0: raised(GLOO), 1: raised(NonFiniteLossError("loss"))}, "learner rank 1 failed: loss", False),
        ({0: raised(PoolUnreachable("it broke"))}, "learner rank 0 lost the pool: it broke", True),
        ({0: raised(lost_pool())}, "learner rank 0 failed: the pool has ended", False),
        ({0: raised(ValueError("odd"))}, "learner rank 0 failed: ValueError: odd", False),
    ],
)
def test_a_death_is_told_apart_from_an_error_that_would_come_again(
    failures: dict[int, BaseException], message: str, is_death: bool
) -> None:
    found = failure_of(failures)
    assert (found.message, found.is_death) == (message, is_death)


class Board:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def publish(self, event: dict[str, Any]) -> None:
        self.events.append(event)


def attempts(monkeypatch: pytest.MonkeyPatch, *outcomes: Failure | None) -> list[TrainArgs]:
    """Let each attempt of the ranks end with the next outcome; return the list of their arguments."""
    made: list[TrainArgs] = []
    left = list(outcomes)

    def run_once(config: Any, args: TrainArgs, *_: Any) -> Failure | None:
        made.append(args)
        return left.pop(0)

    monkeypatch.setattr(learner_job, "_run_once", run_once)
    return made


def arguments(run: Path, board: Board, **changes: Any) -> tuple[RunConfig, TrainArgs]:
    unused: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(TrainArgs))
    values = {**unused, "run_dir": run, "model": "start", "board": board, "restarts": 0}
    learner = {"restarts": 2, **changes}
    return RunConfig.model_validate({"model": {"path": "gpt2"}, "env": {"id": "key_door"}, "learner": learner}), (
        TrainArgs(**values)
    )


DEATH = Failure("learner rank 1 died", "the traceback", is_death=True)


def test_ranks_restart_from_the_newest_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    made = attempts(monkeypatch, DEATH, DEATH, None)

    def publish(event: dict[str, Any]) -> None:  # between the two deaths the ranks finish three cycles
        board.events.append(event)
        commit(begin(tmp_path / "checkpoints", 3), keep=2)

    monkeypatch.setattr(board, "publish", publish)
    config, args = arguments(tmp_path, board)
    train(config, args, None)  # type: ignore[arg-type]
    newest = tmp_path / "checkpoints" / "cycle-00003"
    assert [(a.restarts, a.resume, a.model) for a in made] == [
        (0, None, "start"),
        (1, None, "start"),  # no checkpoint yet: from the beginning
        (2, newest, str(newest / "policy")),
    ]
    reason = {"kind": "restart", "reason": "learner rank 1 died", "limit": 2}
    assert board.events == [{**reason, "cycle": 0, "restarts": 1}, {**reason, "cycle": 3, "restarts": 2}]


def test_a_rank_that_dies_while_it_starts_is_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_ranks(*_: Any) -> Any:
        raise ActorDiedError

    monkeypatch.setattr(learner_job, "run_ranks", run_ranks)
    config, args = arguments(tmp_path, Board(), restarts=1)
    with pytest.raises(RunError, match=r"a learner rank died while it started; .* \(restarted 1 times"):
        train(config, args, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, 2])
def test_the_next_death_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    made = attempts(monkeypatch, *[DEATH] * 9)
    config, args = arguments(tmp_path, Board(), restarts=limit)
    with pytest.raises(RunError, match=rf"learner rank 1 died \(restarted {limit} times.*full traceback: .*error.log"):
        train(config, args, None)  # type: ignore[arg-type]
    assert len(made) == limit + 1
    assert (tmp_path / "error.log").read_text() == "the traceback"


def test_an_error_of_a_rank_ends_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = attempts(monkeypatch, Failure("learner rank 0 failed: loss", ""), None)
    config, args = arguments(tmp_path, Board())
    with pytest.raises(RunError, match=r"learner rank 0 failed: loss \(full traceback"):
        train(config, args, None)  # type: ignore[arg-type]
    assert len(made) == 1


def test_a_restart_shows_everywhere_and_its_cycles_once(tmp_path: Path) -> None:
    out = io.StringIO()
    folder = RunFolder.create(tmp_path, "run")
    journal = Journal(folder, Progress("run", 4, Console(file=out, width=200)), env="e")
    for cycle in (1, 2, 3):
        journal.handle({"kind": "cycle", "cycle": cycle, "metrics": {"return": float(cycle)}})
    event = {"kind": "restart", "cycle": 2, "restarts": 1, "limit": 3, "reason": "learner rank 1 died"}
    journal.handle(event)
    for cycle in (3, 4):
        journal.handle({"kind": "cycle", "cycle": cycle, "metrics": {"return": 10.0 * cycle}})
    assert "learner rank 1 died; restart 1 of at most 3 from cycle 2\n" in out.getvalue()
    rows = folder.rows()
    cycles = [(row["cycle"], row["metrics"]["return"]) for row in rows if row["kind"] == "cycle"]
    assert cycles == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]
    summary = summarise(rows, name="run", env="e", wall_seconds=1.0)
    assert summary["restarts"] == {"times": 1, "reason": "learner rank 1 died"}
    assert any("restarted 1 times" in note and "learner rank 1 died" in note for note in summary["notes"])
    quiet = summarise(rows[:1], name="run", env="e", wall_seconds=1.0)
    assert quiet["restarts"] is None
    assert not any("restarted" in note for note in quiet["notes"])
