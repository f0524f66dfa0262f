"""The workload of `learner.py`: episodes of random tokens, whole or as single turns, and engines of small models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from bench.random_rows import PAD, fresh_actions, random_row
from learner.algorithms.archer import Archer
from learner.algorithms.setup import Setup
from learner.config import LearnerConfig
from learner.models.critic import Critic
from learner.passes.attention import implementation
from learner.passes.layout import Encoder
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import Precision
from learner.passes.rows import Row
from learner.passes.separate_encoder import SeparateEncoder

ACTION_TOKENS = (6, 12)
# Range of the tokens of an observation: a short answer, or a page.
OBSERVATION_TOKENS = {"short": (4, 10), "long": (36, 44)}

# Width, layers, heads, feed-forward width. `demo` is that of configs/demo.yaml.
SCALES: dict[str, dict[str, Any]] = {
    "demo": {"vocabulary": 1024, "policy": (128, 4, 4, 384), "critic": (96, 2, 4, 192)},
    "gpt2": {"vocabulary": 50257, "policy": (768, 12, 12, 3072), "critic": (768, 12, 12, 3072)},
}


@dataclass(frozen=True)
class Case:
    """The settings of one set of rank processes.

    Attributes:
        trials: number of micro-batch sizes to try for each contender.
    """

    turns: Sequence[int]
    observation: str
    ranks: int
    episodes: int
    fresh: int
    trials: int
    repeats: int
    scale: str
    dtype: Precision
    seed: int


def make_row(rng: np.random.Generator, case: Case, turns: int) -> Row:
    """Return an episode of random tokens in which each turn is a sample and has `fresh` fresh actions."""
    return random_row(
        rng,
        SCALES[case.scale]["vocabulary"],
        turns,
        observation=OBSERVATION_TOKENS[case.observation],
        action=ACTION_TOKENS,
        fresh=case.fresh,
    )


def one_by_one(rows: Sequence[Row]) -> list[Row]:
    """Return each turn as a separate episode that ends after it, as in a buffer of transitions."""
    return [_alone(row, turn) for row in rows for turn in map(int, row.turns)]


def _alone(row: Row, turn: int) -> Row:
    assert row.fresh is not None
    episode = row.episode
    cut = replace(
        episode,
        tokens=episode.tokens[: episode.state_end(turn + 1)],
        action_start=episode.action_start[: turn + 1],
        action_end=episode.action_end[: turn + 1],
        reward=episode.reward[: turn + 1],
        terminated=episode.terminated and turn + 1 == len(row.turns),
    )
    actions = row.fresh_at(turn)
    fresh = fresh_actions(actions, len(actions), float(row.fresh.logprobs[0]))
    return Row(cut, np.array([turn], dtype=np.int32), fresh=fresh)


@dataclass(frozen=True)
class _Made(Setup):
    """A setup whose models have random weights: the configurations of policy and critic, and the critic's encoder."""

    models: tuple[LlamaConfig, ...] = ()
    encoder: Encoder = field(default_factory=lambda: PackedEncoder(PAD))

    @property
    def pad_token_id(self) -> int:
        return PAD

    def policy_model(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_config(self.models[0])

    def critic(self) -> tuple[Critic, Encoder]:
        critic = Critic(AutoModel.from_config(self.models[1]), 256, precision=self.config.dtype)
        return critic, self.encoder


def build(case: Case, dtype: Precision, *, separate: bool) -> Archer:
    """Return ArCHer with new engines, with the same weights at each call."""
    scale = SCALES[case.scale]
    config = LearnerConfig.model_validate(
        {
            "dtype": dtype,
            "critic": {"lr": 1e-3, "fresh_per_state": case.fresh},
            "actor": {"fresh_per_state": case.fresh},
        }
    )
    policy, critic = (
        LlamaConfig(
            vocab_size=scale["vocabulary"],
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=feed_forward,
            max_position_embeddings=2048,
            pad_token_id=PAD,
            attn_implementation=implementation(),
        )
        for width, layers, heads, feed_forward in (scale["policy"], scale["critic"])
    )
    torch.manual_seed(case.seed)
    encoder = SeparateEncoder(PAD) if separate else PackedEncoder(PAD)
    return Archer(_Made("", "", None, config, 1.0, models=(policy, critic), encoder=encoder))
