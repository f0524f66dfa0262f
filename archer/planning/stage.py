"""What a rank holds at the same time, and the bytes that its engines take.

This module and `passes` import no configuration, so that `bench/gpu.py` can compare a plan with a GPU where only torch
and transformers are installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from learner.engine.zero import EngineBytes, engine_bytes, gathered_bytes

if TYPE_CHECKING:
    from learner.config import LearnerConfig


@dataclass(frozen=True)
class Part:
    """A module of a rank: a trained engine, or a frozen one."""

    name: str
    module: nn.Module
    trained: bool


@dataclass(frozen=True)
class Stage:
    """What a rank holds at the same time: in cloning, or in the cycles."""

    name: str
    parts: Sequence[Part]

    def module(self, name: str) -> nn.Module | None:
        """Return the module of a part, None if the stage has no such part."""
        return next((part.module for part in self.parts if part.name == name), None)


@dataclass
class Memory:
    """Named amounts of memory in bytes, on the device of a process, and what its host holds beside them."""

    device: dict[str, float] = field(default_factory=dict)
    host: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        return sum(self.device.values())


def stage_memory(stage: Stage, activations: Mapping[str, float], learner: LearnerConfig) -> Memory:
    """Return what the engines of a stage hold, and what the step of one of them holds beside that.

    Args:
        activations: bytes that the passes of a step keep, by the part that the step trains.
    """
    device: dict[str, float] = {}
    engines = {part.name: _engine(part, learner) for part in stage.parts if part.trained}
    device["weights"] = sum(engine.weights for engine in engines.values()) + _frozen(stage, learner)
    device["optimizer"] = sum(engine.optimizer for engine in engines.values())
    # The engines step in turn: what a step holds beside weights and optimizer counts once, for the one that needs most.
    most = max(engines, key=lambda part: _step(engines[part], activations.get(part, 0.0)))
    engine, active = engines[most], activations.get(most, 0.0)
    in_passes = engine.gradients + engine.gathered + active >= engine.step
    device["gradients"] = engine.gradients if in_passes else engine.step
    device["activations"] = active if in_passes else 0.0
    if learner.zero_stage == 3:
        frozen = [_gathered(part.module, learner) for part in stage.parts if not part.trained]
        device["gathered layers"] = (engine.gathered if in_passes else 0.0) + max(frozen, default=0.0)
    if learner.zero_stage:
        held = len(engines) if learner.zero_stage == 3 else 1
        device["reduction buffers"] = held * engine.bucket
    return Memory(device, host=sum(engine.host for engine in engines.values()))


def _step(engine: EngineBytes, activations: float) -> float:
    return max(engine.gradients + engine.gathered + activations, engine.step)


def _engine(part: Part, learner: LearnerConfig) -> EngineBytes:
    trained = [parameter.numel() for parameter in part.module.parameters() if parameter.requires_grad]
    return engine_bytes(
        sum(trained),
        stage=learner.zero_stage,
        ranks=learner.ranks,
        offload=learner.optimizer_offload,
        largest=max(trained, default=0),
        adapters=learner.lora is not None,
    )


def _gathered(module: nn.Module, learner: LearnerConfig) -> float:
    sizes = [parameter.numel() for parameter in module.parameters()]
    return gathered_bytes(sum(sizes), ranks=learner.ranks, largest=max(sizes), adapters=learner.lora is not None)


def _frozen(stage: Stage, learner: LearnerConfig) -> float:
    """Return the bytes of parameters that are not trained, each once: several parts may share them."""
    engines = [part.module.parameters() for part in stage.parts]
    each = {id(p): p for parameters in engines for p in parameters if not p.requires_grad}
    whole = sum(parameter.numel() * parameter.element_size() for parameter in each.values())
    return whole / (learner.ranks if learner.zero_stage == 3 else 1)
