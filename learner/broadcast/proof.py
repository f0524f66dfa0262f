"""Proof of a broadcast: learner and engines give a probe sequence the same log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from buffer.rollout_records import ProbeAnswer
from learner.errors import LearnerError

# A gap of more than this many tolerances is too large for rounding.
_PRECISION_FACTOR = 100.0
_PRECISION = (
    "precision: engine and learner compute in different dtypes or kernels. Set rollout.engine.dtype and learner.dtype "
    "to the same value, or raise learner.broadcast.tolerance"
)


_ALL, _FEW = 2e6, 5e7
"""Parameters up to which an engine is asked for every position, and from which on only for those that must be asked."""
_BLOCK = 32
"""Tokens of a block of the engine's prefix cache on a CPU; those of a GPU are of 16, and begin at its bounds too."""
_BLOCKS = 6
"""Most blocks whose first position is asked for."""


def probe_positions(length: int, parameters: int) -> np.ndarray:
    """Return the tokens of a probe of `length` tokens whose log-probabilities prove a broadcast, int32 ascending.

    Each is a request that computes the tokens behind the last cached block before it, so the time of a proof grows
    with the parameters and with the positions. The last position alone reads every weight but some rows of the
    embedding: its context is the whole probe, and its normalisation the whole output head. Beside it, the first one has
    no cached prefix, which tells a stale cache from stale weights, and the one behind each of some blocks reads that
    block from the cache. Where the model is small, further positions read more rows, up to all; where it is large, they
    would find nothing new.
    """
    bounds = np.arange(_BLOCK + 1, length - 1, _BLOCK)
    if len(bounds) > _BLOCKS:
        bounds = bounds[np.linspace(0, len(bounds) - 1, _BLOCKS).astype(int)]
    further = length - 1 if parameters <= _ALL else 0 if parameters >= _FEW else int((length - 1) * _ALL / parameters)
    spread = np.linspace(1, length - 1, max(further, 2)).round()
    return np.unique(np.concatenate(([1], bounds, spread, [length - 1]))).astype(np.int32)


class BroadcastProofError(LearnerError):
    """An engine does not compute with the weights it was sent; the message names engine, gap and likely cause."""


def compare(
    expected: np.ndarray,
    answers: Sequence[ProbeAnswer],
    *,
    positions: np.ndarray,
    version: int,
    tolerance: float,
    previous: np.ndarray | None = None,
    sent: bool = True,
) -> float:
    """Return the largest gap in log-probability between learner and engines on one probe sequence.

    Args:
        expected: the learner's log-probabilities, float32 [positions].
        answers: the engines', each of the same length.
        positions: the tokens of the probe that they are of, int32 [positions].
        previous: the learner's at the version before, which identify an engine that kept its old weights.
        sent: whether the weights were broadcast; false for those that both sides have loaded.

    Raises:
        BroadcastProofError: the largest gap exceeds `tolerance`, or an engine answers with another version.
    """
    largest = 0.0
    for answer in answers:
        gaps = np.abs(answer.logprobs - expected)
        # Comparisons with NaN are false, so a NaN must count as an infinite gap.
        gap = float(gaps.max()) if np.isfinite(gaps).all() else float("inf")
        if answer.version != version:
            raise BroadcastProofError(
                f"{answer.worker} answers as policy version {answer.version}, but version {version} was broadcast (gap "
                f"of log-probabilities {gap:.2g}): its update did not finish. See the worker's log"
            )
        if not gap <= tolerance:
            at = int(np.argmax(~(gaps <= tolerance)))
            raise BroadcastProofError(
                f"{answer.worker} does not compute with the weights of policy version {version}: largest gap of "
                f"log-probabilities {gap:.3g}, tolerance {tolerance:g}; first at token {positions[at]} of the probe, "
                f"where the engine has {answer.logprobs[at]:.4f} and the learner {expected[at]:.4f}. Likely cause: "
                f"{_likely_cause(answer.logprobs, gaps, tolerance, previous) if sent else _unlike(gaps, tolerance)}"
            )
        largest = max(largest, gap)
    return largest


def _unlike(gaps: np.ndarray, tolerance: float) -> str:
    """Return why engine and learner differ before any broadcast: neither the weights nor a cache can be old."""
    if gaps.max() <= _PRECISION_FACTOR * tolerance:
        return _PRECISION
    return (
        "the engine computes another function of the same weights than the learner, whose passes agree with the "
        "model's own (`archer check`): a window, a scale or a cap that one of them leaves out, or another temperature. "
        "Train another architecture, or another version of the engine"
    )


def _likely_cause(got: np.ndarray, gaps: np.ndarray, tolerance: float, previous: np.ndarray | None) -> str:
    if not np.isfinite(got).all():
        return "the weights hold NaN or infinite values, or overflow in the engine's precision"
    if previous is not None and np.abs(got - previous).max() <= tolerance:
        return "the update changed nothing: the engine answers with the weights of the version before"
    if gaps[0] <= tolerance and gaps[-1] > tolerance and gaps.max() > _PRECISION_FACTOR * tolerance:
        return (
            "keys and values of old weights in the engine's prefix cache: the first token, which has no cached "
            "prefix, agrees"
        )
    if gaps.max() <= _PRECISION_FACTOR * tolerance:
        return _PRECISION
    return (
        "some weights were not replaced, often the output head that shares its weight with the embedding, or learner "
        "and engine apply different temperatures"
    )
