"""What a broadcast sends: the policy's weights, its base or its adapter, gathered layer by layer under ZeRO-3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource, layerwise_groups

from learner.engine.accelerator import deepspeed
from learner.models.adapters import Weight, weights


class PolicySource(WeightSource):
    """The weights of a Hugging Face module under their checkpoint names, each tied weight once.

    Under ZeRO-3 every rank iterates the source together, because gathering a layer is collective; a rank holds one
    gathered layer at a time.

    Args:
        module: the model, also inside a DeepSpeed engine.
        wire_dtype: the dtype to send in; None keeps that of each weight. Adapters are sent in their own.
        part: of a model with an adapter, "merged" gives base and adapter in one, "base" the frozen weights, and
            "adapter" the tensors of `Weight.adapter`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        wire_dtype: torch.dtype | None = None,
        part: Literal["merged", "base", "adapter"] = "merged",
    ) -> None:
        self._module = module
        self._weights = {w.name: w for w in weights(module) if w.layer is not None or part != "adapter"}
        self._wire_dtype = wire_dtype
        self._part = part
        self._groups = [[self._weights[name] for name in group] for group in layerwise_groups(list(self._weights))]
        self._pass: Iterator[tuple[str, torch.Tensor]] | None = None

    @property
    def adapted(self) -> list[Weight]:
        """The weights that an adapter changes."""
        return [weight for weight in self._weights.values() if weight.layer is not None]

    def only(self, part: Literal["base", "adapter"]) -> PolicySource:
        """Return a source of one part of the same weights."""
        return PolicySource(self._module, self._wire_dtype, part)

    def metadata(self) -> list[ParamMeta]:
        """Return name, dtype and whole shape of each tensor of a pass, in order; gathers nothing."""
        found = []
        for weight in (weight for group in self._groups for weight in group):
            if self._part == "adapter":
                found += [ParamMeta(name, part.dtype, _shape(part)) for name, part in weight.adapter.items()]
            else:
                dtype = self._wire_dtype or weight.parameter.dtype
                found.append(ParamMeta(weight.name, dtype, _shape(weight.parameter)))
        return found

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._pass = self._gather()
        return self._pass

    def drain(self) -> None:
        """Finish an interrupted pass, so that the gathers of the other ranks return."""
        for _ in self._pass or ():
            pass

    def _gather(self) -> Iterator[tuple[str, torch.Tensor]]:
        for group in self._groups:
            with _gathered([parameter for weight in group for parameter in self._read(weight)]):
                for weight in group:
                    yield from self._tensors(weight)

    def _read(self, weight: Weight) -> list[torch.nn.Parameter]:
        """Return the parameters that `_tensors` reads."""
        if self._part == "merged":
            return weight.parts
        return [weight.parameter] if self._part == "base" else list(weight.adapter.values())

    def _tensors(self, weight: Weight) -> Iterator[tuple[str, torch.Tensor]]:
        if self._part == "adapter":
            yield from ((name, parameter.detach()) for name, parameter in weight.adapter.items())
            return
        tensor = weight.merged() if self._part == "merged" else weight.parameter.detach()
        yield weight.name, tensor if self._wire_dtype is None else tensor.to(self._wire_dtype)


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _gathered(parameters: list[torch.nn.Parameter]) -> AbstractContextManager[Any]:
    """Return the context in which ZeRO-3 partitions among `parameters` are whole."""
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    return deepspeed.zero.GatheredParameters(partitioned) if partitioned else nullcontext()
