"""The causal model of the sampler: hidden states, log-probabilities, and replacement of its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Cache, DynamicCache

from actors.errors import EngineStartError, WeightTransferError


def mask_of(seen: np.ndarray) -> Tensor:
    """Return the additive mask [rows, 1, queries, columns] of bool `seen` [rows, queries, columns]."""
    allowed = torch.from_numpy(seen)
    return torch.zeros(seen.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min).unsqueeze(1)


_TOLERANCE = 1e-3
"""Nats by which the sampler's log-probabilities may differ from the model's own."""


class InlineModel:
    """A Hugging Face causal model in float32, without gradients.

    Args:
        path: folder or name of the model.
    """

    def __init__(self, path: str) -> None:
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
        except OSError as error:
            raise EngineStartError(f"the model {path!r} cannot be loaded: {error}") from error
        except ValueError as error:
            first = str(error).strip().splitlines()[0]
            raise EngineStartError(f"mode=inline cannot sample from {path!r}: {first}; set mode=sync") from error
        self._model = model.requires_grad_(False).eval()
        self._weights: dict[str, Tensor] = dict(self._model.named_parameters())
        self.vocabulary: int = self._model.get_output_embeddings().weight.shape[0]
        self.window: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self._require_own_function(path)

    @torch.no_grad()
    def _require_own_function(self, path: str) -> None:
        """Check that passes with a cache and explicit masks, as the sampler makes them, give the model's own logits.

        Raises EngineStartError for a model with windows, a state, or a head of its own, which these passes leave out.
        """
        name = type(self._model).__name__
        length = self._checked_length()
        ids = torch.randint(self.vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
        half = length // 2
        position = torch.arange(half, length)
        seen = (torch.arange(length) <= position[:, None]).unsqueeze(0).numpy()
        try:
            cache = DynamicCache()
            leading = self.hidden(ids[:, :half], cache=cache)
            rest = self.hidden(ids[:, half:], cache=cache, positions=position[None], mask=mask_of(seen))
            got = self.logits(torch.cat((leading, rest), 1)).log_softmax(-1)
            gap = float((got - self._own_logits(ids).log_softmax(-1)).abs().max())
        except Exception as error:
            raise EngineStartError(
                f"mode=inline cannot sample from {path!r} ({name}): {type(error).__name__}: {error}; set mode=sync"
            ) from error
        if not gap <= _TOLERANCE:
            raise EngineStartError(
                f"mode=inline cannot sample from {path!r} ({name}): its log-probabilities would differ by up to "
                f"{gap:.2g} nats from the model's own, which has attention windows, a recurrent state or a scale of "
                "logits; set mode=sync"
            )

    def _checked_length(self) -> int:
        """Return a length that exceeds every window of local attention and fits into the context."""
        config = self._model.config.get_text_config()
        windows = [getattr(config, name, None) or 0 for name in ("sliding_window", "attention_chunk_size")]
        return min(max(32, max(windows) + 16), self.window or 4096)

    def _own_logits(self, ids: Tensor) -> Tensor:
        """Return the logits of `ids` by the forward pass that the model's family wrote."""
        config, before = self._model.config, self._model.config._attn_implementation
        if self._model._can_set_attn_implementation():
            config._attn_implementation_internal = "eager"
        found: Tensor = self._model(input_ids=ids, use_cache=False).logits.float()
        config._attn_implementation_internal = before
        return found

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
