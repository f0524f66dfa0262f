"""LoRA (Hu et al., 2021), by peft: small adapters are trained on a frozen base.

Policy, critic, target critic and reference are separate module trees over the *same* frozen tensors (`share`), so all
of them together hold one copy of the base. Each DeepSpeed engine trains the adapter of its own tree. No adapter is
switched on or off between passes, so a pass that recomputes activations uses the adapter that it started with.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from learner.errors import AdapterError

# peft takes seconds to import and most runs do not use it, so functions import it where they need it.
if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from learner.config import LoraConfig

M = TypeVar("M", bound=nn.Module)

ADAPTER = "default"
"""The name that peft gives to the one adapter of a tree."""


def share(module: M) -> M:
    """Return a second module tree over the same parameters and buffers. It takes no memory for weights."""
    return copy.deepcopy(module, {id(t): t for t in itertools.chain(module.parameters(), module.buffers())})


def twin(module: M) -> M:
    """Return a copy that shares the frozen parameters and owns a copy of the trained ones."""
    return copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})


def with_adapter(base: PreTrainedModel, config: LoraConfig) -> PreTrainedModel:
    """Freeze `base` and return a tree over its tensors with a new adapter, which does not change outputs yet.

    Raises:
        AdapterError: `config.targets` matches no linear layer, or an embedding or output head.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    model = share(base.requires_grad_(False))
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=config.targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        inject_adapter_in_model(settings, model, ADAPTER)
    except ValueError as error:
        linear = {name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, nn.Linear | Conv1D)}
        raise AdapterError(
            f"`learner.lora.targets` is {config.targets}, and {base.name_or_path or type(base).__name__!r} has no such "
            f"layers; its linear layers are called {', '.join(sorted(linear))}"
        ) from error
    if any(isinstance(m, LoraLayer) for m in (model.get_output_embeddings(), model.get_input_embeddings())):
        raise AdapterError(
            f"`learner.lora.targets` is {config.targets}, which includes the embedding or the output head; engines "
            "merge adapters only into linear layers of the blocks, so leave these two out"
        )
    return model


@dataclass(frozen=True)
class Weight:
    """One weight of a model.

    Attributes:
        name: its name in a checkpoint, without the names of peft's wrappers.
        parameter: the weight itself; with an adapter, its frozen part.
        layer: the layer of the adapter that changes the weight, or None.
    """

    name: str
    parameter: nn.Parameter
    layer: LoraLayer | None = None

    @property
    def adapter(self) -> dict[str, nn.Parameter]:
        """A [rank, in] and B [out, rank] as `NAME.lora_A` and `NAME.lora_B`; empty without an adapter."""
        if self.layer is None:
            return {}
        parts = {"lora_A": self.layer.lora_A, "lora_B": self.layer.lora_B}
        return {f"{self.name}.{name}": p for name, part in parts.items() for p in part[ADAPTER].parameters()}

    @property
    def parts(self) -> list[nn.Parameter]:
        """The parameters that `merged` reads."""
        return [self.parameter, *self.adapter.values()]

    @property
    def scale(self) -> float:
        """The factor of the product B A."""
        return float(self.layer.scaling[ADAPTER]) if self.layer is not None else 0.0

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as [in, out] (GPT-2)."""
        return self.layer is not None and isinstance(self.layer.get_base_layer(), Conv1D)

    def merged(self) -> Tensor:
        """Return weight + scale B A, added in float32 and rounded once to the weight's dtype.

        Under ZeRO-3 the caller gathers `parts` first.
        """
        weight = self.parameter.detach()
        if self.layer is None:
            return weight
        a, b = (part.detach().float() for part in self.adapter.values())
        delta = b @ a
        return torch.add(weight.float(), delta.T if self.transposed else delta, alpha=self.scale).to(weight.dtype)


def weights(module: nn.Module) -> list[Weight]:
    """Return every weight of `module` once; a tied weight has the name under which it is loaded."""
    layers: dict[str, Any] = {
        f"{name}.base_layer.weight": inner for name, inner in module.named_modules() if hasattr(inner, "lora_A")
    }
    return [
        Weight(name.replace(".base_layer.", "."), parameter, layers.get(name))
        for name, parameter in module.named_parameters()
        if ".lora_" not in name
    ]
