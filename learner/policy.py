"""The token-level policy: a Hugging Face causal model and the log-probabilities of chosen tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from learner.layout import Layout, Predictions

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
        str(path), config=config, dtype=DTYPES[dtype], attn_implementation="sdpa"
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
        hidden = self.model.base_model(
            input_ids=layout.input_ids,
            attention_mask=layout.mask,
            position_ids=layout.position_ids,
            use_cache=False,
        ).last_hidden_state
        head = self.model.get_output_embeddings()
        logits = head(hidden[predictions.row, predictions.column]).float() / (temperature or self.temperature)
        return logits.log_softmax(-1).gather(-1, predictions.token.unsqueeze(-1)).squeeze(-1)


def sequence_predictions(tokens: np.ndarray) -> tuple[Layout, Predictions]:
    """Layout and predictions of a whole sequence: token i + 1 from tokens up to i.

    Args:
        tokens: int [length].
    """
    ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).unsqueeze(0)
    length = ids.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool).tril().view(1, 1, length, length)
    layout = Layout(ids, torch.arange(length).unsqueeze(0), mask)
    zeros = torch.zeros(length - 1, dtype=torch.long)
    return layout, Predictions(zeros, torch.arange(length - 1), ids[0, 1:], zeros, zeros)
