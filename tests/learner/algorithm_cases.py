"""Every algorithm with the same small models and rows, for tests on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from learner_cases import VOCABULARY, change, flat_actions, llama, make_row
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from buffer.episodes.schema import Episode
from learner.algorithms.base import Algorithm, build
from learner.algorithms.phases import Sweep
from learner.algorithms.setup import Setup
from learner.config import AlgorithmName, LearnerConfig
from learner.models.adapters import with_adapter
from learner.models.critic import Critic
from learner.models.pretrained import checkpoint_activations
from learner.passes.layout import Encoder
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import DTYPES, Precision
from learner.passes.rows import Row, deal

LEARNER: dict[str, Any] = {
    "micro_batch": 2,
    "critic": {"lr": 1e-3, "n_step": 2, "warmup_cycles": 0, "fresh_per_state": 2, "unit": "episode"},
    "actor": {"lr": 1e-3, "normalise_advantage": True, "unit": "episode"},
    "offline": {"lr": 1e-3, "unit": "episode"},
    "filtered_bc": {"lr": 1e-3},
    "clone": {"lr": 1e-3, "steps": 100},
    "ppo": {"lr": 1e-3, "value_lr": 1e-3, "batch": 4, "kl_to_clone": 0.1},
    "reinforce": {"lr": 1e-3, "batch": 4},
    "grpo": {"lr": 1e-3, "batch": 4, "group": 4, "kl_to_clone": 0.1},
}


@dataclass(frozen=True)
class SmallSetup(Setup):
    """A setup with small random models, the same at each call and on each rank."""

    @property
    def pad_token_id(self) -> int:
        return 0

    def _load(self, path: str, dtype: Precision) -> PreTrainedModel:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(llama(tie_word_embeddings=True), dtype=DTYPES[dtype])
        if self.config.activation_checkpointing:
            checkpoint_activations(model)
        return model

    def critic(self) -> tuple[Critic, Encoder]:
        config = self.config
        torch.manual_seed(1)
        if config.lora is None:
            backbones = [AutoModel.from_config(llama()) for _ in range(2)]
        else:
            backbones = [with_adapter(self.base.base_model, config.lora) for _ in range(2)]
        if config.activation_checkpointing:
            for backbone in backbones:
                checkpoint_activations(backbone)
        v_backbone = backbones[1] if config.critic.backbones == "apart" else None
        head = torch.nn.Linear(32, VOCABULARY, bias=False) if config.critic.observation_weight else None
        critic = Critic(
            backbones[0],
            16,
            config.critic.heads,
            v_backbone=v_backbone,
            precision=config.dtype,
            observation_head=head,
            privileged_head=torch.nn.Linear(32, VOCABULARY, bias=False) if config.critic.privileged_weight else None,
            q_at=config.critic.q_at,
        )
        return critic, PackedEncoder(0, lambda text: [ord(letter) % VOCABULARY for letter in text])


def make_algorithm(name: AlgorithmName, *, offline_cycles: int = 0, **changes: Any) -> Algorithm:
    """Return the algorithm with small models; `changes` override sections of `LEARNER`."""
    tree = {key: (value | changes.pop(key, {}) if isinstance(value, dict) else value) for key, value in LEARNER.items()}
    config = LearnerConfig.model_validate(tree | changes)
    torch.manual_seed(2)  # for the heads that the algorithm creates
    scorer: Any = object()  # no step needs it
    return build(name, SmallSetup("", "", None, config, 0.9, 0, offline_cycles, scorer))  # type: ignore[arg-type]


RECIPE: dict[str, Any] = {
    "critic": {"value": "fresh", "retrace": 0.9, "n_step": 1, "value_unit": 2.0},
    "actor": {"objective": "improvement", "normalise_advantage": False, "fresh_per_state": 2},
}
"""Changes of `LEARNER`: V from fresh actions, Retrace, and the actor that regresses onto its improvement."""


def bootstrapped(rows: list[Row]) -> list[Row]:
    """Return the rows, each that has not terminated with two fresh actions at the state after its last turn too."""
    found = []
    for row in rows:
        states = [row.fresh_at(turn) for turn in range(len(row.turns))]
        last = [] if row.episode.terminated else [[np.array([5, 6], np.int32), np.array([7], np.int32)]]
        found.append(replace(row, bootstraps=bool(last), fresh=flat_actions(states + last, -4.0)))
    return found


def episodes(seed: int, count: int = 8) -> list[Row]:
    """Return rows of whole episodes; four consecutive episodes are a group."""
    rows = [make_row(1000 * seed + i, all_turns=True, terminated=i % 3 > 0) for i in range(count)]
    for index, row in enumerate(rows):
        change(row, seed=index // 4)
    return rows


def run_cycle(
    algorithm: Algorithm,
    cycle: int,
    rank: int = 0,
    ranks: int = 1,
    *,
    split: Callable[[list[Row]], list[Row]] | None = None,
) -> list[list[float]]:
    """Run the phases of one cycle, two steps each, on rows that depend on the cycle only.

    Args:
        split: returns the rows to train on, from the rows of a batch.

    Returns:
        The metrics of each step, in the order of their names.
    """
    found = []
    rows = episodes(cycle)
    if algorithm.fresh_to_diagnose:
        rows = bootstrapped(rows)
    batches = [rows[:4], rows[4:]]
    shares = [deal(split(batch) if split else batch, ranks, 2)[rank] for batch in batches]
    for phase in algorithm.phases(cycle):
        if isinstance(phase, Sweep):
            algorithm.begin(shares)
        for batch, share in zip(batches, shares, strict=True):
            samples = sum(len(row.turns) for row in batch)
            result = algorithm.step(phase, share, samples, version=1)
            found.append([result.metrics[name] for name in sorted(result.metrics)])
    return found


def run_cloning(steps: int, rank: int, ranks: int, **changes: Any) -> list[list[float]]:
    """Clone actions and observations for `steps` steps and measure the held-out loss after each.

    Returns the metrics of each step, in the order of their names.
    """
    settings = {"steps": steps, "observation_weight": 0.7, "held_out": 0.1, "measure_every": 1}
    cloning: Any = make_algorithm("bc", clone=settings, **changes)
    cloning.measure_on(deal(episodes(steps, 5), ranks, 2)[rank], lambda step, losses: None)
    found = []
    for step in range(steps):
        rows = [make_row(4 * step + i, turns=2 + i, all_turns=True, fresh=0) for i in range(4)]
        samples = sum(len(row.turns) for row in rows)
        metrics = cloning.step(cloning.stage, deal(rows, ranks, 2)[rank], samples, 1).metrics
        assert {"clone/observation_nll", "clone/held_out_loss"} <= metrics.keys()
        found.append([metrics[name] for name in sorted(metrics)])
    return found


def held() -> list[Episode]:
    """Return the eight episodes of `episodes(0)`."""
    return [row.episode for row in episodes(0)]


class OneRank:
    """The leader of a single rank, without a process group."""

    ranks = 1

    def scatter(self, function: Any) -> Any:
        (mine,) = function()
        return mine

    def gather(self, value: Any) -> Any:
        return [value]
