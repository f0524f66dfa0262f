"""Tables instead of networks: policies and critics with known entries, with the real layouts and engines.

A table reads a token and the token before it **by the attention mask and the positions**, so that a wrong layout reads
another entry of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from learner_cases import flat_actions, make_episode
from torch import Tensor, nn
from transformers import PretrainedConfig

from learner.algorithms.base import build
from learner.algorithms.setup import Setup
from learner.config import AlgorithmName, LearnerConfig
from learner.engine.engines import Engine, FrozenEngine
from learner.models.critic import Critic
from learner.models.policy import Policy, TokenValue
from learner.passes.layout import Encoder
from learner.passes.masks import packed_tree, tree_mask
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row

PAD = 0
TOKENS = 8
PAIRS = TOKENS * TOKENS
WIDTH = PAIRS + TOKENS
"""A hidden state: one-hot of (token before, token), then one-hot of the token alone."""


def pair(before: int, token: int) -> int:
    """Return the index of a pair of tokens in the table; `PAD` precedes the first token."""
    return before * TOKENS + token


class TableBackbone(nn.Module):
    """A backbone with the interface of transformers, whose features are each token and the token before it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PretrainedConfig(hidden_size=WIDTH, attn_implementation="sdpa")
        self.dtype = torch.float32
        self.packs = True

    @property
    def base_model(self) -> TableBackbone:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool) -> Any:
        tree = packed_tree()
        assert tree is not None
        sees = tree_mask(tree)[:, 0]
        earlier = sees & (position_ids.unsqueeze(1) == position_ids.unsqueeze(2) - 1)
        assert (earlier.sum(-1) <= 1).all(), "two tokens stand right before this one"
        before = torch.where(earlier.any(-1), input_ids.gather(1, earlier.int().argmax(-1)), PAD)
        pairs = nn.functional.one_hot(before * TOKENS + input_ids, PAIRS)
        tokens = nn.functional.one_hot(input_ids, TOKENS)
        return SimpleNamespace(last_hidden_state=torch.cat((pairs, tokens), -1).float())


class TableModel(nn.Module):
    """A causal model whose logits depend on the last two tokens; the table is `head.weight`."""

    def __init__(self, logits: dict[tuple[int, int], Sequence[float]] | None = None) -> None:
        super().__init__()
        self.base_model = TableBackbone()
        self.config, self.dtype = self.base_model.config, torch.float32
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        nn.init.zeros_(self.head.weight)
        for (before, token), row in (logits or {}).items():
            self.head.weight.data[:, pair(before, token)] = torch.tensor(row)

    def forward(self, inputs_embeds: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.head(self.base_model(inputs_embeds=inputs_embeds).last_hidden_state))


class _OfToken(nn.Module):
    """A value of the last token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(TOKENS))

    def forward(self, hidden: Tensor) -> Tensor:
        return (hidden[..., PAIRS:] @ self.value).unsqueeze(-1)


class _OfPair(nn.Module):
    """A value of the last two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(PAIRS))

    def forward(self, hidden: Tensor) -> Tensor:
        return (hidden[..., :PAIRS] @ self.value).unsqueeze(-1)


def table_critic(heads: int = 2, *, observations: bool = False, texts: bool = False) -> Critic:
    """Return a critic of zeros: Q depends on the last two tokens (state and action), V on the last token.

    With `observations` it predicts them from the last two tokens, with `texts` the privileged texts.
    """
    critic = Critic(TableBackbone(), 8, heads)  # type: ignore[arg-type]
    critic.q = nn.ModuleList(_OfPair() for _ in range(heads))
    critic.v = nn.ModuleList(_OfToken() for _ in range(heads))
    if observations:
        critic.observation_head = nn.Linear(WIDTH, TOKENS, bias=False)
        nn.init.zeros_(critic.observation_head.weight)
    if texts:
        critic.privileged_head = nn.Linear(WIDTH, TOKENS, bias=False)
    return critic


@dataclass(frozen=True)
class TableSetup(Setup):
    """A setup of tables: the policy's logits and the critic's heads."""

    logits: dict[tuple[int, int], Sequence[float]] | None = None
    reference_logits: dict[tuple[int, int], Sequence[float]] | None = None

    @property
    def pad_token_id(self) -> int:
        return PAD

    @property
    def vocabulary(self) -> int:
        return TOKENS

    def text_tokens(self, text: str) -> list[int]:
        return [int(token) for token in text]

    def policy_model(self) -> Any:
        return TableModel(self.logits)

    def value_model(self) -> TokenValue:
        value = TokenValue(TableModel(), 8)  # type: ignore[arg-type]
        value.value = _OfPair()  # type: ignore[assignment]
        return value

    def critic(self) -> tuple[Critic, Encoder]:
        config = self.config.critic
        critic = table_critic(
            config.heads, observations=config.observation_weight > 0, texts=config.privileged_weight > 0
        )
        return critic, PackedEncoder(PAD, self.text_tokens)

    def reference_policy(self, device: torch.device) -> FrozenEngine:
        return FrozenEngine(Policy(TableModel(self.reference_logits), self.temperature), self.config, device)  # type: ignore[arg-type]


def table_algorithm(name: AlgorithmName, *, temperature: float = 1.0, **settings: Any) -> Any:
    """Return the algorithm with tables: `logits` and `reference_logits` of the policies, and settings."""
    tables = {key: settings.pop(key, None) for key in ("logits", "reference_logits")}
    demonstrated = settings.pop("demonstrations_in_replay", False)
    config = LearnerConfig.model_validate({"micro_batch": 64, **settings})
    scorer: Any = object()
    setup = TableSetup("", "", None, config, temperature, 0, 0, scorer, demonstrated, **tables)  # type: ignore[arg-type]
    return build(name, setup)


def one_turn(state: Sequence[int], action: Sequence[int], reward: float = 0.0, *, name: str = "", seed: int = 0) -> Row:
    """Return a terminated episode of a single turn, with no token after its action."""
    start, end = len(state), len(state) + len(action)
    name = name or f"{list(state)}-{list(action)}"
    episode = make_episode(name, [*state, *action], [start], [end], [reward], seed=seed)
    return Row(episode, np.array([0], dtype=np.int32))


def give_fresh(row: Row, per_turn: Sequence[Sequence[Sequence[int]]], logprob: float = 0.0, version: int = 1) -> Row:
    """Attach fresh actions to `row`; each token has this behaviour log-probability and version."""
    row.fresh = flat_actions(per_turn, logprob, version)
    return row


@contextmanager
def gradients_of(engine: Engine) -> Iterator[dict[str, Tensor]]:
    """Set the learning rate of `engine` to zero within the context, and record the clipped gradients of each step."""
    found: dict[str, Tensor] = {}

    def note(*_: Any) -> None:
        for name, parameter in engine.module.named_parameters():
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()

    hook = engine.ds.optimizer.register_step_pre_hook(note)
    rates = [group["lr"] for group in engine.ds.optimizer.param_groups]
    engine.set_lr(0.0)
    try:
        yield found
    finally:
        hook.remove()
        for group, rate in zip(engine.ds.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
