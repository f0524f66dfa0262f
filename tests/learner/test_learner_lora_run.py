"""A run with adapters through the real trainer, with engines that only record what they receive."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from actor_cases import save_model
from learner_cases import make_row
from prometheus_client import CollectorRegistry

from buffer.episodes.schema import Episode
from buffer.rollout_records import CollectReport, ProbeAnswer
from learner.config import LearnerConfig
from learner.entry import TrainArgs
from learner.errors import AdapterError
from learner.feeding.demonstrations import write_demonstrations
from learner.metrics import LearnerMetrics
from learner.train import Trainer

pytestmark = pytest.mark.usefixtures("one_rank")
LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each trainer its own registry, because a process can register metrics only once."""
    monkeypatch.setattr("learner.train.LearnerMetrics", lambda: LearnerMetrics(CollectorRegistry()))


def _episode(seed: int) -> Episode:
    row = make_row(seed, all_turns=True, turns=4)
    return replace(row.episode, seed=seed)


class Rollouts:
    """Engines that return the same episodes for the same seeds and pass every proof; also the replay."""

    stale_error = died_error = KeyError
    names, incarnations = ("engine",), ("engine.0",)
    version = 0

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.held: list[Episode] = []
        self.learner: Any = None

    def ready(self, timeout_s: float) -> None:
        pass

    def window(self) -> int:
        return 256

    def sync_client(self) -> Rollouts:
        return self

    def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        pass

    def start_weight_update(self) -> None:
        pass

    def update_weights(self, info: dict[str, Any]) -> None:
        self.sent.append("base" if info.get("keep") else "adapter" if "scale" in info else "all")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        pass

    def probe(self, tokens: np.ndarray) -> list[ProbeAnswer]:
        return [ProbeAnswer("engine", self.version, self.learner._sequence_logprobs(tokens))]

    def collect(self, episodes: int, *, first_seed: int, store: bool = True, **_: Any) -> CollectReport:
        played = [_episode(first_seed % 1000 + i) for i in range(episodes)]
        if store:
            self.held = played
        zeros = np.zeros(episodes, dtype=np.float32)
        return CollectReport(
            returns=np.array([episode.ret for episode in played], dtype=np.float32),
            successes=zeros,
            turns=np.full(episodes, 4),
            invalid_actions=zeros,
            versions=zeros + self.version,
            seeds=np.arange(episodes) + first_seed,
            tokens=np.ones(episodes, np.int32),
            seconds=1.0,
            window_truncations=0,
            lost=0,
            next_seed=first_seed + episodes,
        )

    # The methods of the replay client.

    def sweep(self, **_: Any) -> list[Episode]:
        return self.held

    def checkpoint(self, directory: Path) -> None:
        directory.mkdir()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _run(
    run: Path, model: Path, learner: dict[str, Any], *, cycles: int = 2, resume: Path | None = None
) -> tuple[list[dict[str, float]], list[str]]:
    """Run PPO; return the metrics of each cycle and the kinds of weights that the engines received."""
    run.mkdir(exist_ok=True)
    demonstrations = run / "demonstrations.arrow"
    write_demonstrations([_episode(i) for i in range(8)], demonstrations)
    ppo = {"lr": 1e-3, "value_lr": 1e-3, "batch": 4, "epochs": 1, "kl_to_clone": 0.1}
    settings = {"micro_batch": 2, "clone": {"steps": 2, "batch": 4}, "ppo": ppo}
    rollouts, events = Rollouts(), []
    arguments = TrainArgs(
        algorithm="ppo",
        learner=LearnerConfig.model_validate(settings | learner),
        run_dir=run,
        model=str(model if resume is None else resume / "policy"),
        start_model=str(model),
        seed=0,
        mode="sync",
        cycles=cycles,
        offline_cycles=0,
        episodes_per_cycle=4,
        max_staleness=0,
        evaluation_episodes=0,
        evaluation_every=0,
        evaluation_greedy=False,
        checkpoint_every=1,
        checkpoint_keep=9,
        temperature=1.0,
        replay=rollouts,  # type: ignore[arg-type]
        rollouts=rollouts,  # type: ignore[arg-type]
        board=SimpleNamespace(publish=events.append),  # type: ignore[arg-type]
        demonstrations=demonstrations,
        resume=resume,
    )
    torch.manual_seed(0)
    rollouts.learner = trainer = Trainer(arguments)
    trainer.run()
    return [event["metrics"] for event in events if event["kind"] == "cycle"], rollouts.sent


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
