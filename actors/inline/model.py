"""The causal model of the sampler: hidden states, log-probabilities, and replacement of its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Cache

from actors.errors import EngineStartError, WeightTransferError


def mask_of(seen: np.ndarray) -> Tensor:
    """Return the additive mask [rows, 1, queries, columns] of bool `seen` [rows, queries, columns]."""
    allowed = torch.from_numpy(seen)
    return torch.zeros(seen.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min).unsqueeze(1)


class InlineModel:
    """A Hugging Face causal model in float32, without gradients.

    Args:
        path: folder or name of the model.
    """

    def __init__(self, path: str) -> None:
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
        except (OSError, ValueError) as error:
            raise EngineStartError(f"the model {path!r} cannot be loaded: {error}") from error
        self._model = model.requires_grad_(False).eval()
        self._weights: dict[str, Tensor] = dict(self._model.named_parameters())
        self.vocabulary: int = self._model.get_output_embeddings().weight.shape[0]
        self.window: int | None = getattr(self._model.config, "max_position_embeddings", None)

    @torch.no_grad()
    def hidden(
        self, ids: Tensor, *, cache: Cache, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the last hidden states [rows, length, width] of `ids` [rows, length], and extend `cache`.

        Without positions and mask, `ids` are the first tokens of their rows.
        """
        return self._model.base_model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next token, float32 [rows, vocabulary], of hidden states [rows, width]."""
        return self._model.get_output_embeddings()(hidden).float()

    def logprobs(self, hidden: Tensor, temperature: float) -> np.ndarray:
        """Return log softmax(logits / temperature), float32 [rows, vocabulary]."""
        return (self.logits(hidden) / temperature).log_softmax(-1).numpy()

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights by tensors with their names. Raises WeightTransferError if they are not this model's."""
        missing = dict(self._weights)
        for name, tensor in weights:
            weight = missing.pop(name, None)
            if weight is None or weight.shape != tensor.shape:
                own = "no such weight" if weight is None else f"the shape {tuple(weight.shape)}"
                raise WeightTransferError(
                    f"the learner sent {name} of shape {tuple(tensor.shape)}, and the sampler's model has {own}; both "
                    "must be of one architecture"
                )
            weight.copy_(tensor)
        if missing:
            raise WeightTransferError(f"the learner did not send the weights {', '.join(sorted(missing))}")
