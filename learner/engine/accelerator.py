"""DeepSpeed, set up before its first import: which accelerator, no compiling at first use, no news.

Everything here imports DeepSpeed through this module: `from learner.accelerator import deepspeed`.
"""

from __future__ import annotations

import logging
import os

import torch

# Unset, DeepSpeed tries all accelerators it knows and warns that it found none.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.runtime.base_optimizer import DeepSpeedOptimizer

# One line per parameter group and step otherwise; warnings still show.
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)

# On a CPU DeepSpeed would compile an all-reduce of its own at first use: two minutes, and a C++ compiler that a fresh
# machine may not have. gloo does the same work.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

__all__ = ["DeepSpeedOptimizer", "deepspeed"]
