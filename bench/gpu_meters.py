"""The meters of `gpu.py`: FLOPs of a step, the device's rate, and the memory that `archer plan` predicts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig, PreTrainedModel

from archer.planning.counting import COUNTED, without_data
from archer.planning.passes import activation_bytes, actor_pass, critic_pass
from archer.planning.published import with_layers
from archer.planning.stage import Memory, Part, Stage, stage_memory
from bench.gpu_models import Kind, Settings, made_base, made_parts, plan_setup
from bench.gpu_steps import MicroBatches, Stepper, synchronize
from learner.models.pretrained import layers_of
from learner.passes.masks import Tree
from learner.passes.precision import in_float32
from learner.passes.rows import Row

DENSE_BFLOAT16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""FLOP/s of dense bfloat16 products in NVIDIA's data sheets, by a part of the device's name."""


class Flops(NamedTuple):
    """FLOPs of the matrix products of one step.

    Attributes:
        needed: of the step. A trained weight takes 2 FLOPs a token forwards and 4 backwards, a frozen weight under an
            adapter 2 backwards. Recomputed activations do not count.
        as_trained: the same if each pass trained every weight: "6 N" a token.
    """

    needed: float
    as_trained: float


def step_flops(stepper: Stepper, base: PreTrainedModel, micro_batches: MicroBatches) -> Flops:
    """Return the FLOPs of a step: linear layers, attention over visible pairs, and the head at predicted tokens.

    The heads of values and the products of adapters are left out: less than 1 per cent.
    """
    config = base.config.get_text_config()
    weights = sum(m.weight.numel() for m in layers_of(base).modules() if isinstance(m, nn.Linear))
    heads = config.num_attention_heads
    pair = 4 * config.num_hidden_layers * heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    head = 2 * config.hidden_size * config.vocab_size
    adapted = stepper.settings.lora is not None
    needed = as_trained = 0.0
    for rows in micro_batches:
        for layout, trained in stepper.layouts(rows):
            tree = layout.structure
            assert isinstance(tree, Tree)
            inside = tree.branch >= 0
            pairs = float((tree.positions() + 1)[inside].sum())
            predicted = len(layout.predictions["fresh"].token) if stepper.kind == "policy" else 0
            products = 2.0 * weights * float(inside.sum()) + head * predicted
            attention = pair * pairs
            # Backwards, attention has two products for each of its own, whatever is trained.
            needed += products * (1 if not trained else 2 if adapted else 3) + attention * (3 if trained else 1)
            as_trained += (products + attention) * 3
    return Flops(needed, as_trained)


def published_rate(device: torch.device) -> float | None:
    """Return the device's FLOP/s of the data sheet, None for a device that the table does not have."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for part, rate in DENSE_BFLOAT16.items() if part in name), None)


def measured_rate(device: torch.device, size: int) -> float:
    """Return the FLOP/s of a product of two random bfloat16 matrices of `size`, the median of seven."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(8):
        synchronize(device)
        begin = time.perf_counter()
        a @ b
        synchronize(device)
        rates.append(2.0 * size**3 / (time.perf_counter() - begin))
    return sorted(rates[1:])[3]


class _Given:
    """Rows in place of the plan's own workload."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    def batch(self, **_: Any) -> list[Row]:
        return self._rows


def planned_memory(config: PreTrainedConfig, settings: Settings, kind: Kind, micro_batches: MicroBatches) -> Memory:
    """Return the memory that `archer plan` predicts for the step of `kind` alone, without CUDA's context."""
    rows = max(micro_batches, key=lambda found: max(row.size for row in found) * len(found))
    setup = plan_setup(settings)

    def passes(_: Any, made: Stage) -> dict[str, Any]:
        load: Any = _Given(rows)
        return actor_pass(setup, made, "archer", load) if kind == "policy" else {kind: critic_pass(setup, made, load)}

    with without_data() as mode:

        def of_depth(depth: int) -> tuple[Any, Stage]:
            return setup, _stage(mode, with_layers(config, depth), settings, kind)

        activations = activation_bytes(mode, of_depth, {kind: config.num_hidden_layers}, passes)
        return stage_memory(_stage(mode, config, settings, kind), activations, settings)  # type: ignore[arg-type]


def _stage(mode: FakeTensorMode, config: PreTrainedConfig, settings: Settings, kind: Kind) -> Stage:
    with mode:
        base = made_base(config, settings, kind, COUNTED)
        parts = made_parts(base, settings, kind)
        in_float32(parts[kind])
        held = [Part(name, module, trained=name == kind) for name, module in parts.items()]
        if settings.lora is not None:  # its output head belongs to no part of the critic
            held.append(Part("base", base, trained=False))
    return Stage("cycles", held)
