"""DeepSpeed, with an accelerator chosen and its own all-reduce off.

Every other module imports DeepSpeed from here, because these settings must precede its first import.
"""

from __future__ import annotations

import os

from learner.passes.precision import accelerator

# If this is unset, DeepSpeed probes all accelerators that it knows and warns that it found none.
os.environ["DS_ACCELERATOR"] = accelerator()

import deepspeed
from deepspeed.runtime.base_optimizer import DeepSpeedOptimizer

# On a CPU DeepSpeed would compile its own all-reduce at first use, which takes two minutes and a C++ compiler. gloo has
# the same operation.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

__all__ = ["DeepSpeedOptimizer", "deepspeed"]
