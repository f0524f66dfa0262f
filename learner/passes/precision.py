"""Mixed precision: weights, gradients and optimizer in float32, forward passes in bfloat16.

Trained weights stay float32, so that rounding does not swallow small steps (`in_float32`);
autocast rounds copies of them inside a pass. Value heads and losses compute outside of autocast. Weights that are never
trained (a LoRA base, a reference) are held in bfloat16.
"""

from __future__ import annotations

import os
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def accelerator() -> str:
    """Return the accelerator that this process trains on, "cuda" or "cpu"; DeepSpeed reads the same variable."""
    return os.environ.get("DS_ACCELERATOR") or ("cuda" if torch.cuda.is_available() else "cpu")


def computing(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the autocast context in which models compute in `precision`.

    Its cache of rounded weights is off: a pass uses each weight once, and under ZeRO-3 the cache would hold a whole
    model instead of one layer.
    """
    return torch.autocast(
        device.type, DTYPES[precision], enabled=DTYPES[precision] is not torch.float32, cache_enabled=False
    )


def in_float32(module: nn.Module) -> list[nn.Parameter]:
    """Convert the trained parameters of `module` to float32 and return them: the master weights."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    return trained
