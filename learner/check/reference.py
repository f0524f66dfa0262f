"""The reference of a proof: each sequence of a row alone, through the model as its family wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from learner.passes.rows import Row


class Figures(NamedTuple):
    """What a proof compares: log-probabilities [tokens] and values [points], float32.

    The tokens are those of the actions of the data, then of the fresh ones, in the order of a layout.
    """

    logprobs: Tensor
    values: Tensor


@contextmanager
def as_written(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` run its family's own attention in this block."""
    config: Any = model.config
    settings = [config, *(getattr(config, name) for name in config.sub_configs if getattr(config, name, None))]
    before = [found._attn_implementation for found in settings]
    if model._can_set_attn_implementation():
        for found in settings:
            found._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        for found, implementation in zip(settings, before, strict=True):
            found._attn_implementation_internal = implementation


@torch.no_grad()
def reference(model: PreTrainedModel, value: nn.Module, rows: Sequence[Row]) -> Figures:
    """Return the figures of `rows` by the forward pass of `model` over each sequence alone.

    Args:
        value: returns values [points, 1] of hidden states [points, width].
    """
    data: list[Tensor] = []
    fresh: list[Tensor] = []
    states: list[Tensor] = []
    branches: list[Tensor] = []
    with as_written(model):
        for row in rows:
            episode = row.episode
            logprobs, hidden = _alone(model, episode.tokens)
            for turn in map(int, row.turns):
                first, end = int(episode.action_start[turn]), int(episode.action_end[turn])
                data.append(logprobs[first - 1 : end - 1])
                states.append(hidden[first - 1])
            for number, turn in enumerate(map(int, row.states)):
                state = episode.tokens[: episode.state_end(turn)]
                for action in row.fresh_at(number):
                    logprobs, hidden = _alone(model, np.concatenate((state, action)))
                    fresh.append(logprobs[len(state) - 1 :])
                    branches.append(hidden[-1])
    return Figures(torch.cat(data + fresh), value(torch.stack(states + branches)).squeeze(-1))


def _alone(model: PreTrainedModel, tokens: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return log p(tokens[i + 1] | tokens[: i + 1]) [length - 1] and the last hidden states [length, width]."""
    ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).unsqueeze(0).to(model.device)
    held: list[Tensor] = []
    # The last model without a head that runs: OPT calls the decoder in its base model, others the base model itself.
    inner = [found for found in model.modules() if isinstance(found, PreTrainedModel) and found is not model]
    hooks = [found.register_forward_hook(lambda _, __, output: held.append(output[0][0])) for found in inner]
    try:
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
    finally:
        for hook in hooks:
            hook.remove()
    logprobs = logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1)
    return logprobs, held[-1].float()
