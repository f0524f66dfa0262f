"""A run with adapters through the real trainer, with engines that only record what they receive."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import trainer_cases
from actor_cases import save_model

from learner.errors import AdapterError

pytestmark = pytest.mark.usefixtures("one_rank")
LORA = {"rank": 4, "alpha": 8}


def _run(
    run: Path, model: Path, learner: dict[str, Any], *, cycles: int = 2, resume: Path | None = None
) -> tuple[list[dict[str, float]], list[str]]:
    """Run PPO; return the metrics of each cycle and the kinds of weights that the engines received."""
    ppo = {"lr": 1e-3, "value_lr": 1e-3, "batch": 4, "epochs": 1, "kl_to_clone": 0.1}
    settings = {"micro_batch": 2, "clone": {"steps": 2, "batch": 4}, "ppo": ppo}
    arguments, events = trainer_cases.make_args(run, model, "ppo", settings | learner, cycles=cycles, resume=resume)
    sent = trainer_cases.train(arguments)
    return trainer_cases.cycles(events), sent


@pytest.mark.parametrize(
    ("clone", "dtype", "cloned"), [("full", "float32", ["all"]), ("adapter", "bfloat16", ["base", "adapter"])]
)
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(
    tmp_path: Path, clone: str, dtype: str, cloned: list[str]
) -> None:
    model = save_model(tmp_path / "model", tied=True)
    learner = {"lora": LORA | {"clone": clone}, "dtype": dtype}
    straight, sent = _run(tmp_path / "run", model, learner)
    assert sent == [*cloned, "base", "adapter", "adapter"], "a base once for each set of engines, then adapters alone"
    shutil.copytree(tmp_path / "run" / "clone", tmp_path / "again" / "clone")
    first = tmp_path / "run" / "checkpoints" / "cycle-00001"
    resumed, sent = _run(tmp_path / "again", model, learner, resume=first)
    assert sent == ["base", "adapter"]
    assert len(resumed) == 1
    for name in ("actor/loss", "actor/norm", "actor/value_loss", "actor/kl_to_clone"):
        assert resumed[0][name] == pytest.approx(straight[1][name], rel=1e-6), name
    assert straight[1]["actor/kl_to_clone"] > 0


def test_a_run_from_an_adapter_broadcasts_it_first_and_refuses_another_base(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", tied=True)
    _run(tmp_path / "first", model, {"lora": LORA}, cycles=1)
    checkpoint = tmp_path / "first" / "checkpoints" / "cycle-00001"
    learner = {"lora": LORA | {"adapter": str(checkpoint / "adapter")}, "clone": {"steps": 0}}
    _, sent = _run(tmp_path / "second", tmp_path / "first" / "clone", learner, cycles=1)
    assert sent == ["base", "adapter", "adapter"], "before the first episode, and after the cycle"
    with pytest.raises(AdapterError, match=r"for the base .*first/clone \(\w+\), and the base here is .*model \(\w+\)"):
        _run(tmp_path / "third", model, learner)
    # Another model replaced the run's clone, so its adapters are refused.
    with pytest.raises(AdapterError, match=r"cycle-00001/adapter was made for the base .*first/clone"):
        _run(tmp_path / "fourth", model, {"lora": LORA, "clone": {"steps": 0}}, resume=checkpoint)
