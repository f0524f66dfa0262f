"""The output head of a causal model as the model itself applies it, with its scales, caps and projections."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from learner.models.pretrained import layers_of


class _Output(BaseModelOutputWithPast):
    """The output of `_Given`. What a family's forward pass reads beside the hidden states is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class _Given(nn.Module):
    """Replaces the layers of a model by hidden states that are already computed: the forward pass returns its input.

    It copies the numbers and strings among the attributes of the layers: Falcon-H1 reads the scale of its logits there.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        plain = {name: value for name, value in vars(layers).items() if isinstance(value, int | float | str)}
        vars(self).update(plain)

    @property
    def decoder(self) -> _Given:
        """Itself, for families whose forward pass calls the decoder of the model."""
        return self

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Output:
        return _Output(last_hidden_state=inputs_embeds)


class OwnHead:
    """Logits [tokens, vocabulary] of hidden states [tokens, width], by the forward pass of `model` without its layers.

    A family may scale its logits (Granite, Cohere), cap them (Gemma 2) or project the hidden states first. All of this
    is in its forward pass alone, so the head runs that pass over a model whose layers are replaced by their result.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = _without_layers(model)

    def __call__(self, hidden: Tensor) -> Tensor:
        return _logits(self._model, hidden)


class HeadModule(nn.Module):
    """`OwnHead` with parameters of its own: copies of those of `model`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(_without_layers(model))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits [..., vocabulary] of hidden states [..., width]."""
        return _logits(self.model, hidden)


def _without_layers(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model over the head of `model`; the two share its parameters."""
    head = copy.copy(model)
    layers = layers_of(model)
    head._modules = {name: _Given(part) if part is layers else part for name, part in model._modules.items()}
    return head


def _logits(head: Any, hidden: Tensor) -> Tensor:
    # Not called as a module: the hooks that DeepSpeed attaches to a whole model would run on the head alone.
    found: Tensor = type(head).forward(head, inputs_embeds=hidden.unsqueeze(0), use_cache=False).logits
    return found.squeeze(0)
