"""The proof of a broadcast beside the rollouts: when it begins and ends, what it asks for, what follows a failure."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_cases import save_model
from trainer_cases import OneEngine, cycles, make_args, make_trainer

from actors.errors import StaleWorkersError
from buffer.rollout_records import ProbeAnswer
from learner.broadcast.broadcaster import Broadcaster
from learner.broadcast.policy_source import PolicySource
from learner.broadcast.proof import BroadcastProofError, probe_positions
from learner.errors import WaitTimeoutError
from learner.train import Trainer

TOKENS = np.arange(48, dtype=np.int32)
POSITIONS = probe_positions(len(TOKENS), parameters=10**9)


class Engine(OneEngine):
    """A service of one engine that answers the proof when `answer` is set."""

    stale_error = StaleWorkersError
    died_error = StaleWorkersError
    timeout_s = 60.0

    def __init__(self, *, off: float = 0.0, dies: int = 0) -> None:
        self.off, self.dies = off, dies
        self.asked, self.answer, self.sends = threading.Event(), threading.Event(), 0

    def install_weights(self, updates: list[dict[str, Any]]) -> None:
        self.sends += len(updates)

    def probe(self, tokens: np.ndarray, positions: np.ndarray) -> list[ProbeAnswer]:
        self.asked.set()
        assert self.answer.wait(30)
        if self.dies:
            self.dies -= 1
            raise StaleWorkersError("no worker holds version 1")
        return [ProbeAnswer("engine", self.version, positions.astype(np.float32) + self.off)]


def _broadcaster(engine: Any) -> Broadcaster:
    model: Any = torch.nn.Linear(3, 2)

    def logprobs(tokens: np.ndarray) -> np.ndarray:
        return np.arange(1, len(tokens), dtype=np.float32)  # of each token, its position

    return Broadcaster(PolicySource(model), engine, "auto", 0, 60.0, logprobs, TOKENS, POSITIONS, 1e-3)


def test_a_large_model_is_asked_for_the_positions_that_can_find_something() -> None:
    assert POSITIONS.tolist() == [1, 33, 47]
    assert probe_positions(48, parameters=10**6).tolist() == list(range(1, 48))
    some = probe_positions(48, parameters=10**7)
    assert len(POSITIONS) < len(some) < 47
    assert {1, 33, 47} <= set(some.tolist())
    long = probe_positions(2048, parameters=10**9)
    assert len(long) == 8
    assert long[[0, -1]].tolist() == [1, 2047]
    assert set(long[1:-1] % 32) == {1}  # the first one behind a block of the cache
    assert probe_positions(2, parameters=10**9).tolist() == [1]


def test_the_learner_goes_on_while_the_engines_answer() -> None:
    engine = Engine()
    broadcaster = _broadcaster(engine)
    broadcaster.send(1)
    assert engine.asked.wait(30)
    assert "prove" not in broadcaster.parts
    engine.answer.set()
    assert broadcaster.settle() == 0.0
    assert set(broadcaster.parts) == {"expect", "connect", "transfer", "prove", "wait"}
    assert broadcaster.settle() is None


def test_a_failed_proof_shows_when_it_is_settled_and_names_the_token() -> None:
    engine = Engine(off=0.5)
    engine.answer.set()
    broadcaster = _broadcaster(engine)
    broadcaster.send(1)
    with pytest.raises(BroadcastProofError, match="first at token 1 of the probe"):
        broadcaster.settle()
    engine.off = 0.0
    assert broadcaster.broadcast(2) == 0.0


def test_weights_are_sent_again_if_no_engine_is_left_to_answer() -> None:
    engine = Engine(dies=2)
    engine.answer.set()
    broadcaster = _broadcaster(engine)
    broadcaster.send(1)
    assert broadcaster.settle() == 0.0
    assert (engine.sends, broadcaster.attempts) == (3, 3)
    engine.dies = 99
    broadcaster.send(2)
    with pytest.raises(WaitTimeoutError, match=r"version 2, 4 times in a row.*no worker holds"):
        broadcaster.settle()


@pytest.fixture
def three_cycles(one_rank: None, tmp_path: Path) -> tuple[Trainer, Any, list[dict[str, Any]]]:
    """Return the trainer of three cycles of REINFORCE, its rollouts, and the list of its events."""
    settings = {"micro_batch": 2, "clone": {"steps": 0}, "reinforce": {"batch": 4}}
    model = save_model(tmp_path / "model")
    arguments, events = make_args(tmp_path / "run", model, "reinforce", settings, cycles=3, checkpoint_every=2)
    return make_trainer(arguments), arguments.rollouts, events


def test_a_failed_proof_ends_the_run_before_anything_learns_from_what_was_played(
    three_cycles: tuple[Trainer, Any, list[dict[str, Any]]], tmp_path: Path
) -> None:
    trainer, rollouts, events = three_cycles
    probe = rollouts.probe
    # The first broadcast is sound, and the second is not.
    rollouts.probe = lambda tokens, positions: [
        replace(answer, logprobs=answer.logprobs + np.float32(rollouts.version > 1))
        for answer in probe(tokens, positions)
    ]
    trainer.session.broadcaster.positions = POSITIONS  # type: ignore[misc]
    message = r"version 2.*What was played since under policy version 2 is unproved \(0 episodes"
    with pytest.raises(BroadcastProofError, match=message):
        trainer.run()
    assert [event for event in events if event["kind"] == "unproved"] == [
        {"kind": "unproved", "cycle": 2, "version": 2, "episodes": 0}
    ]
    assert len(cycles(events)) == 2
    assert not list((tmp_path / "run" / "checkpoints").glob("cycle-2*"))


def test_episodes_played_during_a_proof_that_fails_are_counted_and_never_trained_on(
    three_cycles: tuple[Trainer, Any, list[dict[str, Any]]],
) -> None:
    trainer, rollouts, events = three_cycles
    rollouts.probe = lambda tokens, positions: [ProbeAnswer("engine", 1, np.full(len(positions), np.nan, np.float32))]
    with pytest.raises(BroadcastProofError, match=r"NaN.*\(4 episodes"):
        trainer.run()
    (unproved,) = (event for event in events if event["kind"] == "unproved")
    assert (unproved["version"], unproved["episodes"]) == (1, 4)
    after = events[max(i for i, event in enumerate(events) if event["kind"] == "cycle") :]
    assert not [event for event in after if event["kind"] == "step"]
