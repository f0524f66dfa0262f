"""The token-level policy, its variant with ArCHer's baseline, and PPO's value function, on a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from learner.models.heads import OwnHead
from learner.models.pretrained import hidden_width, layers_of, packs
from learner.passes.layout import Layout, Points, Predictions
from learner.passes.masks import Tree, packing
from learner.passes.paths import paths
from learner.passes.precision import Precision, computing


class Policy(nn.Module):
    """pi(a_h | s, a_<h) of chosen tokens, and optionally ArCHer's token-level baseline b(s, a_<h).

    The output head runs only at positions that predict a token. The baseline reads the detached features, so its loss
    does not change them. Only `model` is broadcast.

    Args:
        temperature: the temperature at which the engines sample.
        precision: the dtype in which the model computes.
        baseline_width: width of the baseline's hidden layer; None for no baseline.
        privileged_tokens: size of the vocabulary from which a head predicts what the environment hides; None for none.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        temperature: float,
        precision: Precision = "float32",
        baseline_width: int | None = None,
        privileged_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.precision = precision
        width = hidden_width(model)
        self.value = None if baseline_width is None else value_head(width, baseline_width)
        self.privileged = None if privileged_tokens is None else text_head(width, privileged_tokens)

    def forward(
        self, layout: Layout, predictions: Predictions, temperature: float | None = None, *, baseline: bool = False
    ) -> Any:
        """Return log-probabilities, float32 [tokens], by default at the temperature of the engines.

        With `baseline`, return the pair of log-probabilities and b, float32 [tokens]. If the layout has the part
        "privileged", return the pair of log-probabilities and those of its tokens.
        """
        hidden = features(layers_of(self.model), layout, self.precision)
        at_tokens = hidden[predictions.row, predictions.column]
        logprob = token_logprobs(
            OwnHead(self.model),
            at_tokens,
            predictions.token,
            self.precision,
            temperature=temperature or self.temperature,
        )
        if "privileged" in layout.predictions:
            assert self.privileged is not None, "the policy was built without a head for privileged texts"
            row, column, token, *_ = layout.predictions["privileged"]
            return logprob, token_logprobs(self.privileged, hidden[row, column], token, self.precision)
        if not baseline:
            return logprob
        assert self.value is not None, "the policy was built without a baseline"
        return logprob, self.value(at_tokens.detach().float()).squeeze(-1)


class TokenValue(nn.Module):
    """PPO's value function: V(s, a_<h) of the state in which each token is predicted."""

    def __init__(self, model: PreTrainedModel, width: int, precision: Precision = "float32") -> None:
        super().__init__()
        self.backbone = layers_of(model)
        self.precision = precision
        self.value = value_head(hidden_width(model), width)

    def forward(
        self, layout: Layout, predictions: Predictions, points: Points | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return V, float32, at each predicted token [tokens], and at `points` [points] or None."""
        hidden = features(self.backbone, layout, self.precision).float()
        at_tokens = self.value(hidden[predictions.row, predictions.column]).squeeze(-1)
        return at_tokens, None if points is None else self.value(hidden[points.row, points.column]).squeeze(-1)


def features(backbone: PreTrainedModel, layout: Layout, precision: Precision = "float32") -> Tensor:
    """Return the last hidden states of `backbone`, computed in `precision`: [rows, length, width].

    A packed layout runs as one pass, or as separate sequences if the backbone needs them (`packs`).
    """
    tree = layout.structure
    with computing(precision, layout.input_ids.device):
        if not isinstance(tree, Tree):
            # No positions: an encoder has its own count (RoBERTa starts at 2).
            return _hidden(backbone, layout.input_ids, tree.long())
        if not packs(backbone):
            alone = paths(layout.input_ids, tree)
            return _hidden(backbone, alone.input_ids, alone.mask, use_cache=False)[alone.row, alone.column]
        with packing(tree):
            # The mask hides nothing: pads are part of the tree. Without a mask, transformers would take each branch for
            # an unrelated sequence, because its positions do not follow the column before it.
            everything = torch.ones_like(layout.input_ids)
            return _hidden(backbone, layout.input_ids, everything, position_ids=layout.position_ids, use_cache=False)


def _hidden(backbone: PreTrainedModel, input_ids: Tensor, mask: Tensor, **kwargs: Any) -> Tensor:
    found: Tensor = backbone(input_ids=input_ids, attention_mask=mask, **kwargs).last_hidden_state
    return found


def token_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    precision: Precision = "float32",
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Return log p of `tokens` [tokens], float32, from the hidden states that predict them and an output head."""
    with computing(precision, hidden.device):
        logits = head(hidden)
    logits = logits.float() / temperature
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def value_head(hidden_size: int, width: int, outputs: int = 1) -> nn.Sequential:
    """Return a head from hidden states [..., hidden_size] to [..., outputs]."""
    return nn.Sequential(nn.Linear(hidden_size, width), nn.ReLU(), nn.Linear(width, outputs))


def text_head(hidden_size: int, vocabulary: int) -> nn.Linear:
    """Return a head from hidden states to logits of tokens, with small weights, so that it begins as uniform."""
    head = nn.Linear(hidden_size, vocabulary, bias=False)
    nn.init.normal_(head.weight, std=0.02)
    return head


def sequence_logprobs(
    policy: Callable[[Layout, Predictions], Tensor], tokens: np.ndarray, device: torch.device | None = None
) -> np.ndarray:
    """Return log p(tokens[i + 1] | tokens[: i + 1]) under a policy: float32 [length - 1] for tokens [length]."""
    ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).unsqueeze(0)
    length = ids.shape[1]
    position = torch.arange(length).unsqueeze(0)
    zeros = torch.zeros(length - 1, dtype=torch.long)
    layout = Layout(ids, position, Tree(torch.zeros_like(position), position + 1, length))
    layout.predictions["action"] = Predictions(zeros, position[0, :-1], ids[0, 1:], zeros, zeros)
    layout = layout.to(device or ids.device)
    with torch.no_grad():
        return policy(layout, layout.predictions["action"]).cpu().numpy()
