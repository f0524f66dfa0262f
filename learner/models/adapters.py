"""LoRA: what is trained are small adapters on a frozen base (Hu et al., 2021), made by peft.

Policy, critic, target critic and reference are module trees of their own over the *same* frozen tensors (`share`), so
that all of them cost one copy of the weights. Nothing is switched on and off between passes: a pass whose activations
are recomputed finds the adapter that it began with, and each DeepSpeed engine steps the adapter of its own tree.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from learner.config import LoraConfig
from learner.errors import AdapterError

# peft takes seconds to import, and most runs train whole models: it is imported where an adapter is made or read.
if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

M = TypeVar("M", bound=nn.Module)

ADAPTER = "default"
"""peft's name of the one adapter in a tree."""

PARTS = ("lora_A", "lora_B")
WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"
"""Which base an adapter is for, beside peft's own files."""


@dataclass(frozen=True)
class Base:
    """A base's folder or name, and its `fingerprint` where it is known."""

    name: str
    fingerprint: str

    @property
    def mark(self) -> str:
        return f" ({self.fingerprint})" if self.fingerprint else ""


def share(module: M) -> M:
    """Another tree of modules over the same parameters and buffers. It costs no weights."""
    return copy.deepcopy(module, {id(t): t for t in itertools.chain(module.parameters(), module.buffers())})


def twin(module: M) -> M:
    """A copy that shares what is frozen and has its own of what is trained."""
    return copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})


def with_adapter(base: PreTrainedModel, config: LoraConfig) -> PreTrainedModel:
    """A tree over the tensors of `base`, frozen by this, with an adapter that changes nothing yet.

    Raises:
        AdapterError: where `config.targets` names none of its linear layers.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    model = share(base.requires_grad_(False))
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=config.targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        inject_adapter_in_model(settings, model, ADAPTER)
    except ValueError as error:
        linear = sorted(
            {name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, nn.Linear | Conv1D)}
        )
        raise AdapterError(
            f"`learner.lora.targets` is {config.targets}, and {base.name_or_path or type(base).__name__!r} has no such "
            f"layers; its linear layers are called {', '.join(linear)}"
        ) from error
    head = model.get_output_embeddings()
    if isinstance(head, LoraLayer) or isinstance(model.get_input_embeddings(), LoraLayer):
        raise AdapterError(
            f"`learner.lora.targets` is {config.targets}, which takes in the embedding or the output head; engines "
            "merge adapters into linear layers of the blocks only, so leave these two out"
        )
    return model


@dataclass(frozen=True)
class Weight:
    """One weight of a model, as a checkpoint names it.

    Attributes:
        name: in the checkpoint; what peft wraps keeps the name that it had.
        parameter: the weight, or the frozen part of it.
        layer: the layer of the adapter that changes it, if one does.
    """

    name: str
    parameter: nn.Parameter
    layer: LoraLayer | None = None

    @property
    def parts(self) -> list[nn.Parameter]:
        """Everything that `merged` reads."""
        return [self.parameter, *self.adapter]

    @property
    def adapter(self) -> list[nn.Parameter]:
        """A [rank, in] and B [out, rank], or nothing."""
        if self.layer is None:
            return []
        return [*self.layer.lora_A[ADAPTER].parameters(), *self.layer.lora_B[ADAPTER].parameters()]

    @property
    def scale(self) -> float:
        """Of the product B A."""
        return float(self.layer.scaling[ADAPTER]) if self.layer is not None else 0.0

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as [in, out] (GPT-2)."""
        return self.layer is not None and isinstance(self.layer.get_base_layer(), Conv1D)

    def merged(self) -> Tensor:
        """The weight with the adapter in it, in the frozen part's dtype; its parts must be gathered."""
        weight = self.parameter.detach()
        if self.layer is None:
            return weight
        a, b = (part.detach() for part in self.adapter)
        return merge(weight, a, b, self.scale, transposed=self.transposed)


def merge(weight: Tensor, a: Tensor, b: Tensor, scale: float, *, transposed: bool) -> Tensor:
    """weight + scale B A, added in float32 and rounded once."""
    delta = b.float() @ a.float()
    return torch.add(weight.float(), delta.T if transposed else delta, alpha=scale).to(weight.dtype)


def weights(module: nn.Module) -> list[Weight]:
    """Every weight of `module` once (a tied one under the name it is loaded by), whether it has an adapter or not."""
    layers: dict[str, Any] = {
        f"{name}.base_layer.weight": inner for name, inner in module.named_modules() if hasattr(inner, "lora_A")
    }
    return [
        Weight(name.replace(".base_layer.", "."), parameter, layers.get(name))
        for name, parameter in module.named_parameters()
        if ".lora_" not in name
    ]


def fingerprint(base: nn.Module) -> str:
    """Tells one base from another: a hash of names, shapes and some of the numbers of every weight.

    The numbers are rounded to bfloat16, so that a base is the same one in either precision. Not for a module that is
    partitioned.
    """
    found = hashlib.sha256()
    for weight in weights(base):
        flat = weight.parameter.detach().flatten()
        picked = flat[:: max(flat.numel() // 256, 1)].to("cpu", torch.bfloat16).view(torch.int16)
        found.update(f"{weight.name} {tuple(weight.parameter.shape)}".encode())
        found.update(picked.numpy().tobytes())
    return found.hexdigest()[:16]


def save_adapter(tensors: dict[str, Tensor], folder: Path, config: LoraConfig, base: Base) -> None:
    """Write a policy's adapter as peft does, and which base it is for.

    Args:
        tensors: `NAME.lora_A` and `NAME.lora_B` of each weight NAME that it changes.
    """
    from peft import LoraConfig as PeftConfig

    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({name.split(".")[-3] for name in tensors})
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=targets if config.targets == "all-linear" else config.targets,
        base_model_name_or_path=base.name,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    settings.save_pretrained(str(folder))
    named = {_peft_name(name): tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / BASE).write_text(json.dumps({"name": base.name, "fingerprint": base.fingerprint}, indent=2) + "\n")


def load_adapter(model: PreTrainedModel, folder: Path, config: LoraConfig, base: Base) -> None:
    """Let the adapter of `model`, which `config` describes, begin as the one in `folder`.

    Raises:
        AdapterError: where it is none, or of another shape, or was made for another base than `base`.
    """
    from peft import LoraConfig as PeftConfig

    try:
        settings: Any = PeftConfig.from_pretrained(str(folder))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise AdapterError(
            f"`learner.lora.adapter` is {str(folder)!r}, which holds no LoRA adapter that peft can read ({error}); it "
            f"needs adapter_config.json and {WEIGHTS}"
        ) from error
    require_base(folder, base, said=settings.base_model_name_or_path)
    if (settings.r, settings.lora_alpha) != (config.rank, config.alpha):
        raise AdapterError(
            f"the adapter in {folder} has rank {settings.r} and alpha {settings.lora_alpha}, and `learner.lora` says "
            f"rank {config.rank} and alpha {config.alpha}; set learner.lora.rank={settings.r} "
            f"learner.lora.alpha={settings.lora_alpha}"
        )
    mine = {
        _peft_name(f"{weight.name}.{part}"): parameter
        for weight in weights(model)
        for part, parameter in zip(PARTS, weight.adapter, strict=False)
    }
    wrong = [
        n
        for n in mine.keys() | tensors.keys()
        if n not in mine or n not in tensors or mine[n].shape != tensors[n].shape
    ]
    if wrong:
        raise AdapterError(
            f"the adapter in {folder} (for {settings.base_model_name_or_path}) does not fit {base.name}: "
            f"{len(wrong)} of its matrices are missing, too many or of another shape, such as {min(wrong)}; use the "
            "base that it was made for and the same learner.lora.targets"
        )
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(tensors[name])


def require_base(folder: Path, base: Base, *, said: str | None = None) -> None:
    """Refuse an adapter folder that was made for another base than `base`.

    Args:
        said: the name of its base, where the folder does not tell more.

    Raises:
        AdapterError: naming both bases.
    """
    record = folder / BASE
    if record.is_file():
        made = Base(**json.loads(record.read_text()))
        same = made.fingerprint == base.fingerprint
    else:
        made = Base(said or "", "")
        same = not said or Path(said).name == Path(base.name).name
    if not same:
        raise AdapterError(
            f"the adapter in {folder} was made for the base {made.name}{made.mark}, and the base here is "
            f"{base.name}{base.mark}; an adapter means nothing on other weights, so start from the base that it was "
            "made for"
        )


def _peft_name(name: str) -> str:
    """`model.layers.0.q_proj.weight.lora_A` as peft files call it."""
    layer, _, part = name.rpartition(".weight.")
    return f"base_model.model.{layer}.{part}.weight"
