"""A loss that is not finite ends the run at that step; the error names the episodes and the checkpoint stays whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_cases import save_model
from algorithm_cases import held
from trainer_cases import Memory, make_args, make_trainer

from learner.engine.checkpoint_folders import checkpoint_folders
from learner.errors import NonFiniteLossError

pytestmark = pytest.mark.usefixtures("one_rank")


SETTINGS = {
    "micro_batch": 2,
    "critic": {"lr": 1e-3, "steps_per_cycle": 2, "batch": 8, "unit": "episode"},
    "offline": {"lr": 1e-3, "steps_per_cycle": 1, "batch": 8, "unit": "episode", "max_weight": 2.0},
}


def _trainer(folder: Path, memory: Memory, resume: Path | None = None) -> Any:
    """Return a trainer of `archer_offline` over episodes in memory."""
    model = folder / "model"
    if not model.exists():
        save_model(model)
    arguments, _ = make_args(
        folder, model, "archer_offline", SETTINGS, replay=memory, cycles=9, checkpoint_keep=2, resume=resume
    )
    return make_trainer(arguments)


def _weights(algorithm: Any) -> list[torch.Tensor]:
    modules = (algorithm.policy.module, algorithm.engines.critic.module, algorithm.engines.target.module)
    return [p.detach().clone() for module in modules for p in module.parameters()]


def test_a_poisoned_episode_is_named_and_the_last_checkpoint_goes_on(tmp_path: Path) -> None:
    memory = Memory(held())
    trainer = _trainer(tmp_path, memory)
    trainer.cycle(online=False)
    saved = _weights(trainer.algorithm)

    whole = memory.held[3]
    poison = whole.reward.copy()
    poison[2] = 1e30  # finite, as the schema requires; its square is not
    memory.held[3] = replace(whole, reward=poison)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.cycle(online=False)
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
    resumed = _trainer(tmp_path, memory, left)
    for mine, theirs in zip(_weights(resumed.algorithm), saved, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    resumed.cycle(online=False)
    assert resumed.state.cycle == 2
    assert all(torch.isfinite(p).all() for p in _weights(resumed.algorithm))


def test_weights_are_left_as_they_were_before_the_step_that_failed(tmp_path: Path) -> None:
    memory = Memory(held())
    trainer = _trainer(tmp_path, memory)
    before = _weights(trainer.algorithm)
    memory.held[0] = replace(memory.held[0], reward=np.full_like(memory.held[0].reward, 1e30))
    with pytest.raises(NonFiniteLossError):
        trainer.cycle(online=False)
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(trainer.algorithm), strict=True))
    assert checkpoint_folders(tmp_path / "checkpoints") == []


def test_a_metric_that_is_not_finite_ends_the_run_too(tmp_path: Path) -> None:
    """Only a metric overflows, and the gradient is finite."""
    trainer = _trainer(tmp_path, Memory(held()))
    step = trainer.algorithm.step

    def overflowing(*arguments: Any) -> Any:
        result = step(*arguments)
        return type(result)(result.metrics | {"critic/q": float("inf")})

    trainer.algorithm.step = overflowing
    with pytest.raises(NonFiniteLossError, match=r"critic/q not finite; rank 0 trained on .*episode-0, .*--resume"):
        trainer.cycle(online=False)
