"""The token-level policy: a Hugging Face causal model and the log-probabilities of chosen tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from learner.passes.attention import Tree, implementation
from learner.passes.layout import Layout, Points, Predictions
from learner.passes.precision import DTYPES, Precision, computing


def load_causal_model(path: str | Path, dtype: Precision, *, activation_checkpointing: bool = False) -> PreTrainedModel:
    """A causal model from a Hugging Face name or folder, with dropout off.

    `dtype` is that of its weights: float32 where they are trained.

    Dropout is off because the learner's log-probabilities must be the engine's: behaviour ratios and the proof of
    broadcast compare the two.
    """
    config = AutoConfig.from_pretrained(str(path))
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout"):
        if getattr(config, name, 0.0):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_pretrained(
        str(path), config=config, dtype=DTYPES[dtype], attn_implementation=implementation()
    )
    if activation_checkpointing:
        checkpoint_activations(model)
    return model


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Let `model` keep the inputs of its blocks alone, and compute the rest again in the backward pass.

    transformers does so in training mode only; dropout, the other thing that mode would change, is off.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()


class Policy(nn.Module):
    """pi(a_h | s, a_<h) of chosen tokens. The output head runs only where a token is predicted.

    Args:
        precision: that the model computes in.
    """

    def __init__(self, model: PreTrainedModel, temperature: float, precision: Precision = "float32") -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.precision = precision

    def forward(self, layout: Layout, predictions: Predictions, temperature: float | None = None) -> Tensor:
        """Log-probabilities [tokens] in float32, by default at the temperature that the engines sample with."""
        return self._logprob(self._features(layout), predictions, temperature)

    def _features(self, layout: Layout) -> Tensor:
        return features(self.model.base_model, layout, self.precision)

    def _logprob(self, hidden: Tensor, predictions: Predictions, temperature: float | None) -> Tensor:
        with computing(self.precision, hidden.device):
            logits = self.model.get_output_embeddings()(hidden[predictions.row, predictions.column])
        logits = logits.float() / (temperature or self.temperature)
        return logits.log_softmax(-1).gather(-1, predictions.token.unsqueeze(-1)).squeeze(-1)


class BaselinePolicy(Policy):
    """A policy with ArCHer's token-level baseline b(s, a_<h) beside it.

    The baseline reads the policy's features where a token is predicted, and learns from them without changing them. The
    engines know nothing of it: only `model` is handed out.
    """

    def __init__(
        self, model: PreTrainedModel, temperature: float, width: int, precision: Precision = "float32"
    ) -> None:
        super().__init__(model, temperature, precision)
        self.value = value_head(model.config.hidden_size, width)

    def forward(
        self,
        layout: Layout,
        predictions: Predictions,
        temperature: float | None = None,
        *,
        baseline: bool = False,
    ) -> Any:
        """Log-probabilities [tokens]; with `baseline` also b at each of the tokens [tokens]."""
        hidden = self._features(layout)
        logprob = self._logprob(hidden, predictions, temperature)
        if not baseline:
            return logprob
        return logprob, self.value(hidden.detach()[predictions.row, predictions.column].float()).squeeze(-1)


class TokenValue(nn.Module):
    """V(s, a_<h) of each token's state, read where the token is predicted: PPO's value function.

    Args:
        precision: that the backbone computes in.
    """

    def __init__(self, model: PreTrainedModel, width: int, precision: Precision = "float32") -> None:
        super().__init__()
        self.backbone = model.base_model
        self.precision = precision
        self.value = value_head(model.config.hidden_size, width)

    def forward(
        self, layout: Layout, predictions: Predictions, points: Points | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """V in float32 at each of the tokens [tokens], and at `points` [points]."""
        hidden = features(self.backbone, layout, self.precision).float()
        at_tokens = self.value(hidden[predictions.row, predictions.column]).squeeze(-1)
        return at_tokens, None if points is None else self.value(hidden[points.row, points.column]).squeeze(-1)


def features(backbone: PreTrainedModel, layout: Layout, precision: Precision = "float32") -> Tensor:
    """What the heads of a model read, computed in `precision`: [rows, length, width]."""
    with computing(precision, layout.input_ids.device):
        return backbone(
            input_ids=layout.input_ids,
            attention_mask=layout.mask(backbone),
            # An encoder counts positions its own way (RoBERTa starts at 2), so only packed passes say theirs.
            **({"position_ids": layout.position_ids, "use_cache": False} if layout.packed else {}),
        ).last_hidden_state


def value_head(hidden_size: int, width: int) -> nn.Sequential:
    """Hidden state [..., hidden_size] to a value [..., 1]."""
    return nn.Sequential(nn.Linear(hidden_size, width), nn.ReLU(), nn.Linear(width, 1))


def sequence_predictions(tokens: np.ndarray) -> tuple[Layout, Predictions]:
    """Layout and predictions of a whole sequence: token i + 1 from tokens up to i.

    Args:
        tokens: int [length].
    """
    ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).unsqueeze(0)
    length = ids.shape[1]
    position = torch.arange(length).unsqueeze(0)
    layout = Layout(ids, position, Tree(torch.zeros_like(position), position + 1, length))
    zeros = torch.zeros(length - 1, dtype=torch.long)
    return layout, Predictions(zeros, torch.arange(length - 1), ids[0, 1:], zeros, zeros)
