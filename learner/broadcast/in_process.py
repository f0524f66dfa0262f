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
    tolerance: float
    parts: dict[str, float] = field(default_factory=dict)
    attempts: int = 1
    _previous: np.ndarray | None = None

    def broadcast(self, version: int) -> float:
        """Hand over the weights as policy `version` and return the largest gap in log-probability of the proof.

        Raises BroadcastProofError if the sampler does not compute with these weights, and the error of `load_weights`.
        """
        self.rollouts.sync_client().load_weights(version, self.source)
        return self._compare(version, sent=True)

    def prove(self, version: int) -> float:
        """Return the largest gap in log-probability of the weights that both sides have loaded as `version`.

        Raises BroadcastProofError if the sampler does not compute with them.
        """
        return self._compare(version, sent=False)

    def _compare(self, version: int, *, sent: bool) -> float:
        expected, answers = self.logprobs_fn(self.probe_tokens), self.rollouts.probe(self.probe_tokens)
        previous = self._previous
        gap = compare(expected, answers, version=version, tolerance=self.tolerance, previous=previous, sent=sent)
        self._previous = expected
        return gap

    def close(self) -> None:
        """Do nothing: nothing stays open between broadcasts."""
