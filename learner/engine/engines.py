"""DeepSpeed engines: a module, its optimizer and its partitions on this rank.

Losses are sums, divided by the size of the global batch. A step therefore gives the same weights, up to rounding, on
any number of ranks and micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from learner.config import LearnerConfig
from learner.engine.accelerator import DeepSpeedOptimizer, deepspeed
from learner.engine.tensor_files import load_tensors
from learner.engine.zero import REDUCE_BUCKET
from learner.errors import NonFiniteLossError
from learner.passes.precision import in_float32
from learner.passes.rows import Row


class Engine:
    """Trains one module under DeepSpeed (ZeRO 0 to 3), with its own AdamW and its own gradient clipping.

    Trained parameters are held in float32. Engines may share frozen parameters (`learner.models.adapters.share`).

    Args:
        module: the same on every rank; DeepSpeed owns it from now on.
        max_grad_norm: the norm to which a larger gradient is scaled down.
    """

    def __init__(self, module: nn.Module, config: LearnerConfig, *, lr: float, max_grad_norm: float) -> None:
        parameters = in_float32(module)
        self._partly_frozen = len(parameters) < sum(1 for _ in module.parameters())
        self.ds, *_ = deepspeed.initialize(
            model=module,
            # With the optimizer on the host, the fused AdamW avoids a loop over the tensors in Python.
            optimizer=torch.optim.AdamW(
                parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=config.optimizer_offload or None
            ),
            config=deepspeed_config(config, max_grad_norm),
        )

    @property
    def module(self) -> nn.Module:
        return self.ds.module

    @property
    def device(self) -> torch.device:
        return self.ds.device

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.ds(*args, **kwargs)

    def step(
        self,
        micro_batches: Sequence[Sequence[Row]],
        loss: Callable[..., Tensor],
        *along: Sequence[Any],
        global_size: float,
    ) -> float:
        """Take one optimizer step and return the norm of the gradient before clipping.

        Args:
            micro_batches: this rank's micro-batches; every rank has the same number.
            loss: returns the loss of a micro-batch, **summed** over its samples.
            along: sequences with one element per micro-batch, which `loss` gets after the rows.
            global_size: number of samples on all ranks, by which the sum is divided.

        Raises:
            NonFiniteLossError: on every rank, if the gradient is not finite. The message names the episodes of the
                micro-batches whose loss was not finite. The weights are unchanged.
        """
        ranks = dist.get_world_size()
        norm: float | None = None
        finite: list[Tensor] = []  # read only if the norm is not finite: each read synchronises with the device
        for index, arguments in enumerate(zip(micro_batches, *along, strict=True)):
            self.ds.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
            total = loss(*arguments)
            finite.append(torch.isfinite(total))
            # DeepSpeed averages gradients over ranks; the factor `ranks` turns the mean into the sum.
            self.ds.backward(total * (ranks / global_size))
            if index == len(micro_batches) - 1:
                norm = self._full_gradient_norm()
                if norm is not None and not math.isfinite(norm):
                    break
            self.ds.step()
        norm = float(self.ds.get_global_grad_norm()) if norm is None else norm
        if not math.isfinite(norm):
            unsound = [rows for rows, sound in zip(micro_batches, finite, strict=True) if not sound]
            raise NonFiniteLossError(_non_finite([row.episode.episode_id for rows in unsound for row in rows], norm))
        return norm

    def _full_gradient_norm(self) -> float | None:
        """Return the norm if each rank holds the whole float32 gradient, where DeepSpeed does not report it."""
        if self.ds.get_global_grad_norm() is not None or isinstance(self.ds.optimizer, DeepSpeedOptimizer):
            return None
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the following steps."""
        for group in self.ds.optimizer.param_groups:
            group["lr"] = lr

    def save(self, directory: str, tag: str) -> None:
        """Write trained weights, optimizer and counters as `directory`/`tag`. Called on every rank."""
        self.ds.save_checkpoint(directory, tag=tag, exclude_frozen_parameters=True)

    def load(self, directory: str, tag: str) -> None:
        """Read what `save` wrote on the same number of ranks. Raises CheckpointError."""
        self.ds.checkpoint_engine.load = load_tensors
        self.ds.load_checkpoint(directory, tag=tag, load_module_strict=not self._partly_frozen)


class FrozenEngine:
    """Evaluates one module without gradients, partitioned over the ranks like its trained counterpart.

    It holds a reference, which never changes, or the target critic, which only `average_towards` changes. Parameters
    that are already frozen are shared with other engines and stay as they are. The average is kept in float32, because
    bfloat16 would round its small steps to nothing.
    """

    def __init__(self, module: nn.Module, config: LearnerConfig, device: torch.device) -> None:
        self._own = in_float32(module)
        module.requires_grad_(False).eval()
        if config.zero_stage == 3:
            self._call, *_ = deepspeed.initialize(model=module, config=deepspeed_config(config, 1.0))
            self.module = self._call.module
        else:
            self._call = self.module = module.to(device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self._call(*args, **kwargs)

    def average_towards(self, online: Engine, tau: float) -> None:
        """Update this rank's shard of each parameter: bar <- (1 - tau) bar + tau theta."""
        trained = (p for p in online.module.parameters() if p.requires_grad)
        with torch.no_grad():
            for target, source in zip(self._own, trained, strict=True):
                local_shard(target).lerp_(local_shard(source), tau)

    def state(self) -> list[Tensor]:
        """Return this rank's shards, for a checkpoint."""
        return [local_shard(parameter).detach().cpu().clone() for parameter in self._own]

    def load_state(self, state: list[Tensor]) -> None:
        """Restore the shards that `state` returned."""
        with torch.no_grad():
            for parameter, saved in zip(self._own, state, strict=True):
                local_shard(parameter).copy_(saved)


def _non_finite(episodes: list[str], norm: float) -> str:
    """Return the text of a NonFiniteLossError. Called on every rank, each with its own episodes."""
    shared: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(shared, episodes)
    named = list(dict.fromkeys(episode for part in shared for episode in part))
    if not named:
        return f"the gradient's norm is {norm}, although every loss was finite"
    return f"the gradient's norm is {norm}, from the loss of the episodes {', '.join(named)}"


def local_shard(parameter: nn.Parameter) -> Tensor:
    """Return the part of a parameter on this rank: its ZeRO-3 partition, or all of it."""
    return parameter.ds_tensor.data if hasattr(parameter, "ds_tensor") else parameter.data


def deepspeed_config(config: LearnerConfig, max_grad_norm: float) -> dict[str, Any]:
    """Return DeepSpeed's settings for one engine.

    Mixed precision is absent, because `learner.passes.precision` applies it inside the modules.
    """
    zero: dict[str, Any] = {"stage": config.zero_stage, "stage3_param_persistence_threshold": 0}
    if config.zero_stage:
        zero["reduce_bucket_size"] = REDUCE_BUCKET
    if config.optimizer_offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.use_gpu}
    if config.lora is not None:
        # Engines share the frozen base. Each gathers a layer just before it computes with it and releases it just
        # after, so that no engine finds a layer in a state that another engine left.
        zero |= {"stage3_prefetch_bucket_size": 0, "stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # If true, DeepSpeed requires its own AdamW for the host, which it compiles at first use.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
