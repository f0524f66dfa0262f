"""DeepSpeed engines: one trained module, its optimizer and its place among the ranks.

Invariant: `step` leaves the same weights on any number of ranks and micro-batches, up to rounding, because losses
are sums that are divided by the size of the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from learner.accelerator import DeepSpeedOptimizer, deepspeed
from learner.config import LearnerConfig
from learner.errors import NonFiniteLossError
from learner.rows import Row


class Engine:
    """A module under DeepSpeed (ZeRO 0 to 3) with AdamW and gradient clipping of its own.

    Args:
        module: on every rank the same; DeepSpeed takes it over.
        lr: learning rate.
        max_grad_norm: the gradient is scaled down to this norm.
    """

    def __init__(self, module: nn.Module, config: LearnerConfig, *, lr: float, max_grad_norm: float) -> None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        self.ds, *_ = deepspeed.initialize(
            model=module,
            optimizer=torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
            config=deepspeed_config(config, max_grad_norm),
        )
        self.zero_stage = config.zero_stage

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
        loss: Callable[[Sequence[Row]], Tensor],
        *,
        global_size: float,
    ) -> float:
        """One optimizer step.

        Args:
            micro_batches: this rank's; as many on every rank.
            loss: the loss of a micro-batch, **summed** over its samples.
            global_size: number of samples over all ranks, by which the sum is divided.

        Returns:
            The gradient's norm before clipping.

        Raises:
            NonFiniteLossError: on every rank, where the gradient is not finite; names the episodes of the
                micro-batches whose loss was not.
        """
        ranks = dist.get_world_size()
        norm: float | None = None
        unsound: list[str] = []
        for index, micro_batch in enumerate(micro_batches):
            self.ds.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
            total = loss(micro_batch)
            if not torch.isfinite(total):
                unsound += [row.episode_id for row in micro_batch]
            # DeepSpeed averages gradients over ranks; times `ranks` makes it the sum.
            self.ds.backward(total * (ranks / global_size))
            if index == len(micro_batches) - 1:
                norm = self._full_gradient_norm()
                if norm is not None and not math.isfinite(norm):
                    break
            self.ds.step()
        norm = float(self.ds.get_global_grad_norm()) if norm is None else norm
        if not math.isfinite(norm):
            raise NonFiniteLossError(_unsound(unsound, norm))
        return norm

    def _full_gradient_norm(self) -> float | None:
        """The norm where each rank holds the whole float32 gradient; there DeepSpeed clips without telling it."""
        if self.ds.get_global_grad_norm() is not None or isinstance(self.ds.optimizer, DeepSpeedOptimizer):
            return None
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def set_lr(self, lr: float) -> None:
        """Learning rate of the steps to come."""
        for group in self.ds.optimizer.param_groups:
            group["lr"] = lr

    def save(self, directory: str, tag: str) -> None:
        """Weights, optimizer and counters of all ranks, collectively."""
        self.ds.save_checkpoint(directory, tag=tag)

    def load(self, directory: str, tag: str) -> None:
        """What `save` wrote, on as many ranks as wrote it."""
        self.ds.load_checkpoint(directory, tag=tag)


class FrozenEngine:
    """A module that is evaluated and never stepped, partitioned over the ranks like its trained counterpart.

    Holds the target critic: `average_towards` is its only update.
    """

    def __init__(self, module: nn.Module, config: LearnerConfig, device: torch.device) -> None:
        module.requires_grad_(False).eval()
        self.zero_stage = config.zero_stage
        if self.zero_stage == 3:
            self._call, *_ = deepspeed.initialize(model=module, config=deepspeed_config(config, 1.0))
            self.module = self._call.module
        else:
            self._call = self.module = module.to(device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self._call(*args, **kwargs)

    def average_towards(self, online: Engine, tau: float) -> None:
        """bar <- (1 - tau) bar + tau theta, on the shard of each parameter that this rank holds."""
        shards = zip(local_shards(self.module), local_shards(online.module), strict=True)
        with torch.no_grad():
            for target, source in shards:
                target.lerp_(source.to(target.dtype), tau)

    def state(self) -> list[Tensor]:
        """This rank's shards, for a checkpoint."""
        return [shard.detach().cpu().clone() for shard in local_shards(self.module)]

    def load_state(self, state: list[Tensor]) -> None:
        with torch.no_grad():
            for shard, saved in zip(local_shards(self.module), state, strict=True):
                shard.copy_(saved)


def _unsound(episodes: list[str], norm: float) -> str:
    """What was not finite, for an error; called on every rank, each with the episodes of its own."""
    shared: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(shared, episodes)
    named = list(dict.fromkeys(episode for part in shared for episode in part))
    if not named:
        return f"the gradient's norm is {norm}, though every loss was finite"
    return f"the gradient's norm is {norm}, from the loss of the episodes {', '.join(named)}"


def local_shards(module: nn.Module) -> Iterator[Tensor]:
    """Of each parameter the part that lives on this rank: its ZeRO-3 partition, or all of it."""
    for parameter in module.parameters():
        yield parameter.ds_tensor.data if hasattr(parameter, "ds_tensor") else parameter.data


def deepspeed_config(config: LearnerConfig, max_grad_norm: float) -> dict[str, Any]:
    """DeepSpeed's settings for one engine."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {"stage": config.zero_stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def all_reduce_sum(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Sum each entry over the ranks; all ranks must hold the same keys in the same order."""
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(values, tensor.tolist(), strict=True))


def moments(tensors: Iterable[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation over all entries on all ranks."""
    flat = torch.cat([t.flatten() for t in tensors]).double()
    sums = torch.stack([flat.sum(), flat.square().sum(), torch.tensor(float(flat.numel())).to(flat)])
    dist.all_reduce(sums)
    total, squares, count = sums.tolist()
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5
