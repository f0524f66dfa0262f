"""Reads the files of a checkpoint without running what a pickle may hold."""

from __future__ import annotations

import sys
from pickle import UnpicklingError
from typing import Any

import torch

from learner.engine.accelerator import deepspeed
from learner.errors import CheckpointError

_FRAGMENTS = sys.modules[f"{deepspeed.__name__}.utils.tensor_fragment"]  # `utils` has a class of the module's name
_CLASSES = [
    deepspeed.runtime.fp16.loss_scaler.LossScaler,
    deepspeed.runtime.zero.config.ZeroStageEnum,
    _FRAGMENTS.fragment_address,
]
"""What DeepSpeed writes besides tensors, numbers, text and containers."""


def load_tensors(path: str, map_location: Any = None) -> Any:
    """Return the content of a file that `torch.save` wrote. Raises CheckpointError if it holds any other object.

    DeepSpeed's own function, which this one replaces, executes any pickle.
    """
    try:
        with torch.serialization.safe_globals(_CLASSES):
            return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        named = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
        raise CheckpointError(
            f"{path} holds more than tensors, and a resume executes no other object"
            f"{': ' + named[0] if named else ''}; resume from a checkpoint that ArCHer wrote"
        ) from error
