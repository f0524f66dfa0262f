"""The critic's auxiliary loss: its backbone also predicts the observation tokens of the episodes that it reads.

It adds weight times the mean of -log p over the observation tokens of the global batch to the mean of J_Q and J_V over
samples. The tokens are those of the packed pass in which Q and V are read, so the loss costs an output head and no
further pass. With a backbone each for Q and V, both predict, each with the whole weight, through one head.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from learner.algorithms.base import MicroBatches
from learner.engine.sums import Sums
from learner.errors import LearnerError
from learner.passes.layout import Part
from learner.passes.packed_encoder import observation_tokens


class ObservationLoss:
    """The auxiliary loss of one step. Made on every rank, because the number of tokens is that of all ranks.

    Args:
        weight: `critic.observation_weight`; at 0 `parts` is empty and the loss is 0.
        samples: number of samples of the global batch, by which the engine divides the step's loss.
        sums: gets the sum "observation_nll", whose mean over samples is that of -log p over tokens.

    Attributes:
        parts: what the layout of the critic's pass needs in addition; its horizon is 1.
    """

    def __init__(self, weight: float, micro_batches: MicroBatches, samples: float, sums: Sums) -> None:
        self.parts: tuple[Part, ...] = ("observation",) if weight else ()
        self._weight = weight
        self._sums = sums
        if not weight:
            return
        count = Sums(sums.device)
        count.add(tokens=sum(observation_tokens(rows, 1) for rows in micro_batches))
        tokens = count.total()["tokens"]
        if not tokens:
            raise LearnerError(
                "`learner.critic.observation_weight` trains the critic on observations, and the episodes of a batch "
                "have no token outside of their actions and after their first token; set it to 0"
            )
        self._per_token = samples / tokens

    def of(self, values: Mapping[str, Tensor]) -> Tensor | float:
        """Return the loss, summed, from the values of the critic's pass, and add it to the sums."""
        if not self._weight:
            return 0.0
        logprob = values["observation"]
        total = -self._per_token * logprob.sum()
        self._sums.add(observation_nll=total / len(logprob))
        return self._weight * total
