"""Adapters as files: peft's format, and `base.json`, which records the base that an adapter was made for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from buffer.atomic_files import write_atomic
from learner.errors import AdapterError
from learner.models.adapters import weights

if TYPE_CHECKING:
    from learner.config import LoraConfig

WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"


@dataclass(frozen=True)
class Base:
    """The frozen model under an adapter: its folder or name, and its `fingerprint`, empty if unknown."""

    name: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})" if self.fingerprint else self.name


def fingerprint(base: nn.Module) -> str:
    """Return a hash of the names, the shapes and a sample of the numbers of all weights of `base`.

    Numbers are rounded to bfloat16, so that a base has the same fingerprint in either precision. `base` must not be
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
    """Write an adapter of `base` into `folder`, given its tensors by the names of `Weight.adapter`."""
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
    write_atomic(folder / BASE, json.dumps(asdict(base), indent=2) + "\n")


def load_adapter(model: PreTrainedModel, folder: Path, config: LoraConfig, base: Base) -> None:
    """Copy the adapter in `folder` into the adapter of `model`, which was made with `config`.

    Raises:
        AdapterError: `folder` holds no adapter, or one of another shape or for another base than `base`.
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
    require_base(folder, base, recorded=settings.base_model_name_or_path)
    if (settings.r, settings.lora_alpha) != (config.rank, config.alpha):
        raise AdapterError(
            f"the adapter in {folder} has rank {settings.r} and alpha {settings.lora_alpha}, but `learner.lora` has "
            f"rank {config.rank} and alpha {config.alpha}; set learner.lora.rank={settings.r} "
            f"learner.lora.alpha={settings.lora_alpha}"
        )
    mine = {_peft_name(name): part for weight in weights(model) for name, part in weight.adapter.items()}
    wrong = mine.keys() ^ tensors.keys()
    wrong |= {name for name in mine.keys() & tensors.keys() if mine[name].shape != tensors[name].shape}
    if wrong:
        raise AdapterError(
            f"the adapter in {folder} (for {settings.base_model_name_or_path}) does not fit {base.name}: "
            f"{len(wrong)} of its matrices are missing, unexpected or of another shape, such as {min(wrong)}; use the "
            "base that it was made for and the same learner.lora.targets"
        )
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(tensors[name])


def require_base(folder: Path, base: Base, *, recorded: str | None = None) -> None:
    """Check that the adapter in `folder` was made for `base`.

    Args:
        recorded: the base's name in peft's own settings, which counts if `folder` has no `base.json`.

    Raises:
        AdapterError: naming both bases.
    """
    record = folder / BASE
    if record.is_file():
        made = Base(**json.loads(record.read_text()))
        same = made.fingerprint == base.fingerprint
    else:
        made = Base(recorded or "", "")
        same = not recorded or Path(recorded).name == Path(base.name).name
    if not same:
        raise AdapterError(
            f"the adapter in {folder} was made for the base {made}, and the base here is {base}; an adapter is valid "
            "only on the weights that it was trained on, so start from the base that it was made for"
        )


def _peft_name(name: str) -> str:
    """Return the name in peft's files of `model.layers.0.q_proj.weight.lora_A`."""
    layer, _, part = name.rpartition(".weight.")
    return f"base_model.model.{layer}.{part}.weight"
