"""The meters of `learner.py`: FLOPs and memory of a step, and the machine's rate. All functions are collective."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from bench.common import resident
from learner.algorithms.utterance_critic import ActorCritic
from learner.passes.precision import DTYPES


class Meter:
    """Counts tokens and FLOPs of matrix products until `totals`; a backward pass counts as two forward passes."""

    def __init__(self, engines: ActorCritic, pad_token_id: int) -> None:
        self._pad = pad_token_id
        self.encoded = self.useful = self.flops = 0
        self._hooks = []
        critic: Any = engines.critic.module
        target: Any = engines.target.module
        model: Any = engines.policy.module.model
        pairs: tuple[tuple[nn.Module, nn.Module], ...] = (
            (engines.policy.module, model.base_model),
            (critic, critic.backbone),
            (target, target.backbone),
        )
        for whole, backbone in pairs:
            inside = {module for module in backbone.modules() if isinstance(module, nn.Linear)}
            parameters = sum(module.weight.numel() for module in inside)
            self._hooks.append(
                backbone.register_forward_pre_hook(
                    lambda _, __, kwargs, parameters=parameters: self._backbone(kwargs["input_ids"], parameters),
                    with_kwargs=True,
                )
            )
            self._hooks += [
                module.register_forward_pre_hook(self._head)
                for module in whole.modules()
                if isinstance(module, nn.Linear) and module not in inside
            ]

    def _backbone(self, ids: torch.Tensor, parameters: int) -> None:
        useful = int((ids != self._pad).sum())
        self.encoded += ids.numel()
        self.useful += useful
        self.flops += self._passes() * 2 * parameters * useful

    def _head(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        self.flops += self._passes() * 2 * inputs[0].numel() * module.out_features

    @staticmethod
    def _passes() -> int:
        return 3 if torch.is_grad_enabled() else 1

    def totals(self, device: torch.device) -> dict[str, float]:
        """Remove the hooks and return sums over the ranks."""
        for hook in self._hooks:
            hook.remove()
        sums = torch.tensor([self.encoded, self.useful, self.flops], dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        encoded, useful, flops = sums.tolist()
        return {"useful": useful, "flops": flops, "padding": 1.0 - useful / encoded}


def step_memory(step: Callable[[], object], device: torch.device) -> float:
    """Return the peak memory of a step beyond the memory held between steps, in MiB, on the rank that needs most."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        taken = torch.cuda.max_memory_allocated(device) - before
    else:
        # Freed memory must return to the system, or the next step would reuse it and appear to take none.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is resident now
        before = resident("VmRSS")
        step()
        taken = resident("VmHWM") - before
    most = torch.tensor(float(taken), device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return most.item() / 2**20


def matmul_rate(rows: int, inner: int, outer: int, dtype: str, device: torch.device) -> float:
    """Return the FLOP/s of [rows, inner] x [inner, outer], summed over ranks that compute at the same time."""
    a = torch.randn(rows, inner, device=device, dtype=DTYPES[dtype])
    b = torch.randn(inner, outer, device=device, dtype=DTYPES[dtype])
    rounds = max(1, int(5e9 / (2 * rows * inner * outer)))
    rates = []
    for _ in range(7):
        dist.barrier()
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(rounds):
            a @ b
        synchronize(device)
        rates.append(2 * rows * inner * outer * rounds / (time.perf_counter() - begin))
    rate = torch.tensor(sorted(rates)[3], device=device, dtype=torch.float64)
    dist.all_reduce(rate)
    return rate.item()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
