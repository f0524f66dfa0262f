"""Mixed precision: weights, gradients and optimizer in float32, the models' passes in bfloat16.

What is trained is float32 and stays so (`learner.engine` holds to it), so that no small step is lost to rounding;
autocast rounds copies of it inside a pass. Value heads and losses are outside of it. What is never trained (a LoRA
base, a reference) is held in bfloat16 itself.
"""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def computing(precision: Precision, device: torch.device) -> torch.autocast:
    """Passes inside it compute in `precision`.

    Rounded copies are not kept for the length of the pass: each weight is used once in it, and under ZeRO-3 they would
    hold a whole model where a layer should be held.
    """
    return torch.autocast(
        device.type, DTYPES[precision], enabled=DTYPES[precision] is not torch.float32, cache_enabled=False
    )


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What activations are on `device` here and now: autocast's, or else `dtype`, the weights' own."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
