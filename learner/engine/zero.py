"""What DeepSpeed's ZeRO stages hold on one rank, in bytes; float32 throughout, as `learner.engine.engines` sets it.

The figures are those of the engines themselves: `tests/learner/test_learner_memory.py` counts the tensors of real
engines on one rank and two. Without partitioning (stage 0) DeepSpeed adds nothing to weights, gradients and AdamW.
"""

from __future__ import annotations

from dataclasses import dataclass

REDUCE_BUCKET = 50_000_000
"""The number of elements of the buffer through which ZeRO reduces gradients. DeepSpeed's default of 500 million takes
2 GB in every engine, for a model of any size."""
LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed's default of the number of parameters that stage 3 keeps gathered."""

_FLOAT = 4


@dataclass(frozen=True)
class EngineBytes:
    """The memory of one trained engine on one rank.

    Attributes:
        weights, optimizer: held all the time.
        gradients: held from the first backward pass of a step to its last.
        step: while the optimizer steps, beyond `weights` and `optimizer`: gradients and intermediate results.
        gathered: stage 3's gathered weights and the gradients of them that are on their way to their owners.
        bucket: the reduction buffer, in a step; at stage 3 all the time.
        host: what `optimizer_offload` moves from the device to the host.
    """

    weights: float
    optimizer: float
    gradients: float
    step: float
    gathered: float = 0.0
    bucket: float = 0.0
    host: float = 0.0


def engine_bytes(trained: int, *, stage: int, ranks: int, offload: bool, largest: int, adapters: bool) -> EngineBytes:
    """Return the memory of an engine with `trained` parameters.

    Args:
        largest: number of elements of the largest parameter.
        adapters: whether the engine trains adapters on a shared base, see `learner.engine.engines.deepspeed_config`.
    """
    whole, share = _FLOAT * float(trained), _FLOAT * trained / ranks
    if stage == 0:
        return EngineBytes(whole, 2 * whole, whole, 2 * whole)
    bucket = float(_FLOAT * REDUCE_BUCKET)
    # A master copy of the rank's share and Adam's two moments; stage 3 also holds a buffer for its gradients.
    optimizer = (3 if stage < 3 else 4) * share
    gradients = {1: whole, 2: share, 3: 0.0}[stage]
    gathered = 2 * gathered_bytes(trained, ranks=ranks, largest=largest, adapters=adapters) if stage == 3 else 0.0
    weights = whole if stage < 3 else share
    step = max(gradients, (3 if stage < 3 else 1) * share)
    if not offload:
        return EngineBytes(weights, optimizer, gradients, step, gathered, bucket)
    passing = whole if stage == 1 else 2.0 * _FLOAT * largest
    # Stage 2 adds up the gradients of micro-batches in one more buffer.
    host = (6 if stage == 2 else 5) * share + _FLOAT * largest
    return EngineBytes(weights, 0.0, passing, passing, gathered, bucket, host)


def gathered_bytes(parameters: int, *, ranks: int, largest: int, adapters: bool) -> float:
    """Return the weights that stage 3 gathers at the same time: with adapters one layer, else up to a limit."""
    if ranks == 1:
        return 0.0
    return float(_FLOAT * (largest if adapters else min(parameters, LIVE_PARAMETERS)))
