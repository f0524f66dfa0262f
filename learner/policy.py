"""The token-level policy: a Hugging Face causal model and the log-probabilities of chosen tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from learner.attention import Tree, implementation
from learner.layout import Layout, Points, Predictions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_causal_model(path: str | Path, dtype: str, *, activation_checkpointing: bool = False) -> PreTrainedModel:
    """A causal model from a Hugging Face name or folder, with dropout off.

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
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


class Policy(nn.Module):
    """pi(a_h | s, a_<h) of chosen tokens. The output head runs only where a token is predicted."""

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, layout: Layout, predictions: Predictions, temperature: float | None = None) -> Tensor:
        """Log-probabilities [tokens] in float32, by default at the temperature that the engines sample with."""
        return self._logprob(features(self.model.base_model, layout), predictions, temperature)

    def _logprob(self, hidden: Tensor, predictions: Predictions, temperature: float | None) -> Tensor:
        head = self.model.get_output_embeddings()
        logits = head(hidden[predictions.row, predictions.column]).float() / (temperature or self.temperature)
        return logits.log_softmax(-1).gather(-1, predictions.token.unsqueeze(-1)).squeeze(-1)


class BaselinePolicy(Policy):
    """A policy with ArCHer's token-level baseline b(s, a_<h) beside it.

    The baseline reads the policy's features where a token is predicted, and learns from them without changing them. The
    engines know nothing of it: only `model` is handed out.
    """

    def __init__(self, model: PreTrainedModel, temperature: float, width: int) -> None:
        super().__init__(model, temperature)
        self.value = value_head(model.config.hidden_size, width).to(model.dtype)

    def forward(
        self,
        layout: Layout,
        predictions: Predictions,
        temperature: float | None = None,
        *,
        baseline: bool = False,
    ) -> Any:
        """Log-probabilities [tokens]; with `baseline` also b at each of the tokens [tokens]."""
        hidden = features(self.model.base_model, layout)
        logprob = self._logprob(hidden, predictions, temperature)
        if not baseline:
            return logprob
        return logprob, self.value(hidden.detach()[predictions.row, predictions.column]).squeeze(-1).float()


class TokenValue(nn.Module):
    """V(s, a_<h) of each token's state, read where the token is predicted: PPO's value function."""

    def __init__(self, model: PreTrainedModel, width: int) -> None:
        super().__init__()
        self.backbone = model.base_model
        self.value = value_head(model.config.hidden_size, width).to(model.dtype)

    def forward(
        self, layout: Layout, predictions: Predictions, points: Points | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """V in float32 at each of the tokens [tokens], and at `points` [points]."""
        hidden = features(self.backbone, layout)
        at_tokens = self.value(hidden[predictions.row, predictions.column]).squeeze(-1).float()
        return at_tokens, None if points is None else self.value(hidden[points.row, points.column]).squeeze(-1).float()


def features(backbone: PreTrainedModel, layout: Layout) -> Tensor:
    """What the heads of a causal model read: [rows, length, width]."""
    return backbone(
        input_ids=layout.input_ids,
        attention_mask=layout.mask(backbone),
        position_ids=layout.position_ids,
        use_cache=False,
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
