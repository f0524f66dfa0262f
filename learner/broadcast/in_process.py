"""The broadcast of an inline run: the sampler is in this process, takes the weights by a call, and proves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from learner.broadcast.proof import compare
from learner.models.adapters import weights
from learner.protocols import RolloutService


class OwnWeights:
    """The weights of a Hugging Face module under their checkpoint names, each tied weight once.

    Args:
        part: of a model with an adapter, "merged" gives base and adapter in one, "adapter" the adapter alone.
    """

    def __init__(self, module: torch.nn.Module, part: Literal["merged", "adapter"] = "merged") -> None:
        self._module = module
        self._part = part

    def only(self, part: Literal["adapter"]) -> OwnWeights:
        """Return one part of the same weights."""
        return OwnWeights(self._module, part)

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for weight in weights(self._module):
            if self._part == "merged":
                yield weight.name, weight.merged()
            else:
                yield from ((name, parameter.detach()) for name, parameter in weight.adapter.items())


@dataclass
class InProcessBroadcaster:
    """Hands the policy's weights to the sampler as a new version, and proves it.

    The attributes are those of `learner.broadcast.broadcaster.Broadcaster`; the rollouts' `sync_client()` has
    `load_weights(version, weights)`.
    """

    source: OwnWeights
    rollouts: RolloutService
    logprobs_fn: Callable[[np.ndarray], np.ndarray]
    probe_tokens: np.ndarray
    positions: np.ndarray
    tolerance: float
    parts: dict[str, float] = field(default_factory=dict)
    attempts: int = 1
    _previous: np.ndarray | None = None
    _gap: float | None = None

    def send(self, version: int) -> None:
        """Hand over the weights as policy `version`, and prove it at once: nothing plays beside this process.

        Raises BroadcastProofError if the sampler does not compute with these weights, and the error of `load_weights`.
        """
        self.rollouts.sync_client().load_weights(version, self.source)
        self._gap = self._compare(version, sent=True)

    def settle(self) -> float | None:
        """Return the largest gap of the proof of the last `send`, None if its gap has been returned."""
        gap, self._gap = self._gap, None
        return gap

    def prove(self, version: int) -> float:
        """Return the largest gap in log-probability of the weights that both sides have loaded as `version`.

        Raises BroadcastProofError if the sampler does not compute with them.
        """
        return self._compare(version, sent=False)

    def _compare(self, version: int, *, sent: bool) -> float:
        expected = self.logprobs_fn(self.probe_tokens)[self.positions - 1]
        gap = compare(
            expected,
            self.rollouts.probe(self.probe_tokens, self.positions),
            positions=self.positions,
            version=version,
            tolerance=self.tolerance,
            previous=self._previous,
            sent=sent,
        )
        self._previous = expected
        return gap

    def close(self) -> None:
        """Do nothing: nothing stays open between broadcasts."""
