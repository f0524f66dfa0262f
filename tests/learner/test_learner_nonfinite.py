"""A loss that is not finite ends the run at that step, names the episodes, and leaves a checkpoint to go on from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_cases import Memory, OneRank, make_algorithm

from learner.engine.checkpoint_folders import checkpoint_folders
from learner.engine.checkpoints import TrainerState
from learner.errors import NonFiniteLossError
from learner.feeding.feeder import Feeder
from learner.metrics import LearnerMetrics
from learner.train import Trainer

pytestmark = pytest.mark.usefixtures("one_rank")


@cache
def _metrics() -> LearnerMetrics:
    """A process registers its metrics once."""
    return LearnerMetrics()


def _trainer(folder: Path, memory: Memory) -> Any:
    """A trainer of `archer_offline` over episodes in memory, before its first cycle; no engines to broadcast to."""
    algorithm = make_algorithm(
        "archer_offline",
        critic={"steps_per_cycle": 2, "batch": 8},
        offline={"steps_per_cycle": 1, "batch": 8, "max_weight": 2.0},
    )
    trainer: Any = Trainer.__new__(Trainer)
    trainer.rank = 0
    trainer.config = algorithm.config  # type: ignore[attr-defined]
    trainer.state = TrainerState()
    trainer.leader = SimpleNamespace(call=lambda function: function())
    trainer.args = SimpleNamespace(
        run_dir=folder,
        replay=memory,
        board=SimpleNamespace(publish=lambda event: None),
        cycles=9,
        evaluation_every=0,
        checkpoint_every=1,
        checkpoint_keep=2,
    )
    rollouts = SimpleNamespace(stale_error=KeyError)
    trainer.feeder = Feeder(memory, rollouts, OneRank(), trainer.config)  # type: ignore[arg-type]
    trainer.metrics = _metrics()
    trainer.algorithm = algorithm
    trainer.source = list(algorithm.policy_model.state_dict().items())
    trainer.tokenizer = SimpleNamespace(save_pretrained=lambda directory: None)
    trainer._started = trainer._last_step_event = 0.0
    trainer._broadcast = lambda: 0.0
    return trainer


def _weights(algorithm: Any) -> list[torch.Tensor]:
    modules = (algorithm.policy.module, algorithm.engines.critic.module, algorithm.engines.target.module)
    return [p.detach().clone() for module in modules for p in module.parameters()]


def test_a_poisoned_episode_is_named_and_the_last_checkpoint_goes_on(tmp_path: Path) -> None:
    memory = Memory()
    trainer = _trainer(tmp_path, memory)
    trainer._cycle(online=False)
    saved = _weights(trainer.algorithm)

    whole = memory.held[3]
    poison = whole.reward.copy()
    poison[2] = 1e30  # finite, as the schema wants it; its square is not
    memory.held[3] = replace(whole, reward=poison)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer._cycle(online=False)
    said = str(caught.value)
    assert "step 0 of the critic phase in cycle 1" in said
    assert memory.held[3].episode_id in said
    assert "--resume" in said
    named = [
        row.episode_id for row in memory.held if f"{row.episode_id}," in said + "," or f"{row.episode_id}." in said
    ]
    assert len(named) <= 2, "only the micro-batch that went wrong"

    memory.held[3] = whole
    (left,) = checkpoint_folders(tmp_path / "checkpoints")
    assert left.name == "cycle-00001"
    resumed = _trainer(tmp_path, memory)
    resumed.algorithm.load(left)
    resumed.state = TrainerState.read(left)
    for mine, theirs in zip(_weights(resumed.algorithm), saved, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    resumed._cycle(online=False)
    assert resumed.state.cycle == 2
    assert all(torch.isfinite(p).all() for p in _weights(resumed.algorithm))


def test_weights_are_left_as_they_were_before_the_step_that_failed(tmp_path: Path) -> None:
    memory = Memory()
    trainer = _trainer(tmp_path, memory)
    before = _weights(trainer.algorithm)
    memory.held[0] = replace(memory.held[0], reward=np.full_like(memory.held[0].reward, 1e30))
    with pytest.raises(NonFiniteLossError):
        trainer._cycle(online=False)
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(trainer.algorithm), strict=True))
    assert checkpoint_folders(tmp_path / "checkpoints") == []


def test_a_metric_that_is_not_finite_ends_the_run_too(tmp_path: Path) -> None:
    """Where the gradient is finite all the same: an overflow that only a record shows."""
    trainer = _trainer(tmp_path, Memory())
    step = trainer.algorithm.step

    def overflowing(*arguments: Any) -> Any:
        result = step(*arguments)
        return type(result)(result.metrics | {"critic/q": float("inf")})

    trainer.algorithm.step = overflowing
    with pytest.raises(NonFiniteLossError, match=r"critic/q not finite; rank 0 trained on .*episode-0, .*--resume"):
        trainer._cycle(online=False)
