"""DeepSpeed engines: one trained module, its optimizer and its place among the ranks.

Invariant: `step` leaves the same weights on any number of ranks and micro-batches, up to rounding, because losses
are sums that are divided by the size of the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from learner.config import LearnerConfig
from learner.engine.accelerator import DeepSpeedOptimizer, deepspeed
from learner.errors import NonFiniteLossError
from learner.passes.rows import Row


class Engine:
    """A module under DeepSpeed (ZeRO 0 to 3) with AdamW and gradient clipping of its own.

    What is trained is held in float32. Frozen parameters may be other engines' too (`learner.lora.share`).

    Args:
        module: on every rank the same; DeepSpeed takes it over.
        lr: learning rate.
        max_grad_norm: the gradient is scaled down to this norm.
    """

    def __init__(self, module: nn.Module, config: LearnerConfig, *, lr: float, max_grad_norm: float) -> None:
        parameters = in_float32(module)
        self._partly_frozen = len(parameters) < sum(1 for _ in module.parameters())
        self.ds, *_ = deepspeed.initialize(
            model=module,
            # Fused where it steps on the host: the plain one would walk through the tensors in Python.
            optimizer=torch.optim.AdamW(
                parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=config.optimizer_offload or None
            ),
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
        """Weights that are trained, optimizer and counters of all ranks, collectively."""
        self.ds.save_checkpoint(directory, tag=tag, exclude_frozen_parameters=True)

    def load(self, directory: str, tag: str) -> None:
        """What `save` wrote, on as many ranks as wrote it."""
        self.ds.load_checkpoint(directory, tag=tag, load_module_strict=not self._partly_frozen)


class FrozenEngine:
    """A module that is evaluated and never stepped, partitioned over the ranks like its trained counterpart.

    Holds the target critic: `average_towards` is its only update. What of the module is frozen already belongs to
    others too, and is left alone. The average is float32: in bfloat16 it would stop where a step is below a rounding.
    """

    def __init__(self, module: nn.Module, config: LearnerConfig, device: torch.device) -> None:
        self._own = in_float32(module)
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
        trained = (p for p in online.module.parameters() if p.requires_grad)
        with torch.no_grad():
            for target, source in zip(self._own, trained, strict=True):
                local_shard(target).lerp_(local_shard(source), tau)

    def state(self) -> list[Tensor]:
        """This rank's shards, for a checkpoint."""
        return [local_shard(parameter).detach().cpu().clone() for parameter in self._own]

    def load_state(self, state: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, saved in zip(self._own, state, strict=True):
                local_shard(parameter).copy_(saved)


def _unsound(episodes: list[str], norm: float) -> str:
    """What was not finite, for an error; called on every rank, each with the episodes of its own."""
    shared: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(shared, episodes)
    named = list(dict.fromkeys(episode for part in shared for episode in part))
    if not named:
        return f"the gradient's norm is {norm}, though every loss was finite"
    return f"the gradient's norm is {norm}, from the loss of the episodes {', '.join(named)}"


def in_float32(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` that are trained, turned to float32: the master weights."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    return trained


def local_shard(parameter: nn.Parameter) -> Tensor:
    """The part of a parameter that lives on this rank: its ZeRO-3 partition, or all of it."""
    return parameter.ds_tensor.data if hasattr(parameter, "ds_tensor") else parameter.data


def deepspeed_config(config: LearnerConfig, max_grad_norm: float) -> dict[str, Any]:
    """DeepSpeed's settings for one engine. Mixed precision is `learner.precision`'s, so DeepSpeed sees float32."""
    zero: dict[str, Any] = {"stage": config.zero_stage, "stage3_param_persistence_threshold": 0}
    if config.zero_stage >= 2:
        # Gradients are reduced through a buffer of this many elements. DeepSpeed's default of 500 million takes 2 GB an
        # engine at stage 3, whatever the model's size, and a learner holds several engines.
        zero["reduce_bucket_size"] = 50_000_000
    if config.optimizer_offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.use_gpu}
    if config.lora is not None:
        # Engines share the frozen base. Each gathers a layer just before it computes with it and lets go of it just
        # after, so that none finds a layer in a state that another left behind.
        zero |= {"stage3_prefetch_bucket_size": 0, "stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # Else it wants its own AdamW for the host, which is compiled at first use.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def all_reduce_sum(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Sum each entry over the ranks; all ranks must hold the same keys in the same order."""
    if dist.get_world_size() == 1:
        return values
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(values, tensor.tolist(), strict=True))


def moments(tensors: Iterable[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation over all entries on all ranks."""
    flat = torch.cat([t.flatten() for t in tensors]).double()
    sums = torch.stack([flat.sum(), flat.square().sum(), torch.tensor(float(flat.numel())).to(flat)])
    if dist.get_world_size() > 1:
        dist.all_reduce(sums)
    total, squares, count = sums.tolist()
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5
