"""What DeepSpeed's engines hold, counted from their tensors, against the arithmetic of `learner.engine.zero`."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from learner_cases import run_ranks
from torch import Tensor, nn

from learner.engine.zero import REDUCE_BUCKET, engine_bytes

LAYERS, WIDTH = 48, 48
CASES = [(0, False), (1, False), (2, True), (3, False)]


class _Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.sum()


def _tensors() -> dict[int, int]:
    """Return the size in bytes of each storage that exists."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found}


def _count(rank: int, out: Path) -> None:
    from learner.config import LearnerConfig
    from learner.engine.engines import Engine

    found = []
    for stage, offload in CASES:
        before = _tensors()
        engine = Engine(
            _Stack(), LearnerConfig(zero_stage=stage, optimizer_offload=offload), lr=1e-3, max_grad_norm=1.0
        )  # type: ignore[arg-type]
        for _ in range(2):
            engine.step([[], []], lambda rows, engine=engine: engine(torch.ones(1, WIDTH)), global_size=2.0)
        held = {key: size for key, size in _tensors().items() if key not in before}
        buckets = sum(size for size in held.values() if size == 4 * REDUCE_BUCKET)
        found.append([sum(held.values()) - buckets, buckets])
        del engine
    if rank == 0:
        (out / "found.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_engines_hold_what_the_arithmetic_says(tmp_path: Path) -> None:
    run_ranks(2, _count, tmp_path)
    parameters, largest = LAYERS * WIDTH * WIDTH, WIDTH * WIDTH
    for (stage, offload), (held, buckets) in zip(CASES, json.loads((tmp_path / "found.json").read_text()), strict=True):
        planned = engine_bytes(parameters, stage=stage, ranks=2, offload=offload, largest=largest, adapters=False)
        # On a CPU the host is the device too. A buffer for one parameter stays where the optimizer is on the host.
        expected = planned.weights + planned.optimizer + planned.host + (4 * largest if offload and stage < 3 else 0)
        assert held == pytest.approx(expected, rel=0.05), f"stage {stage}, offload {offload}"
        assert buckets == (planned.bucket if stage == 3 else 0.0)


def test_every_stage_divides_more() -> None:
    def total(stage: int) -> float:
        found = engine_bytes(10**9, stage=stage, ranks=8, offload=False, largest=10**7, adapters=True)
        return found.weights + found.optimizer + found.gradients

    assert [total(stage) for stage in range(4)] == [16e9, 9.5e9, 6e9, 2.5e9]
