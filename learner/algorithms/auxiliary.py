"""The critic's auxiliary losses: its backbone also predicts observations, and what the environment hides.

Observations: weight times the mean of -log p over the observation tokens of the global batch is added to the mean of
J_Q and J_V over samples. The tokens are those of the packed pass in which Q and V are read, so the loss costs an output
head and no further pass.

Privileged text: at the last token of each state, a linear head predicts the tokens of `Episode.privileged` in any
order, as one distribution (a bag of tokens; Zhao et al., 2017, section 3.3). Weight times the mean of -log p over the
tokens of a text and over the samples that have one is added. The policy's input and the critic's input have no part of
the text: the loss only shapes the features, so that they hold what the observations say about it.

With a backbone each for Q and V, both predict, each with the whole weight, through one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from learner.algorithms.base import MicroBatches
from learner.critic_config import CriticConfig
from learner.engine.sums import Sums
from learner.errors import LearnerError
from learner.passes.layout import Part, Predictions
from learner.passes.packed_encoder import observation_tokens
from learner.passes.rows import Row


class AuxiliaryLosses:
    """The auxiliary losses of one step. Made on every rank, because the numbers of tokens are those of all ranks.

    Args:
        samples: number of samples of the global batch, by which the engine divides the step's loss.
        sums: gets the sums "observation_nll" and "privileged_nll", whose means over samples are the unweighted losses.

    Attributes:
        parts: what the layout of the critic's pass needs in addition; its horizon is 1.
        texts: number of samples of the global batch that have a privileged text, 0 if none is predicted.
    """

    def __init__(self, config: CriticConfig, micro_batches: MicroBatches, samples: float, sums: Sums) -> None:
        self._observation, self._privileged = config.observation_weight, config.privileged_weight
        self._sums = sums
        self.parts: tuple[Part, ...] = ()
        self.texts = 0.0
        if not (self._observation or self._privileged):
            return
        count = Sums(sums.device)
        count.add(tokens=0.0, texts=0.0)
        if self._observation:
            self.parts += ("observation",)
            count.add(tokens=sum(observation_tokens(rows, 1) for rows in micro_batches))
        if self._privileged:
            self.parts += ("privileged",)
            count.add(texts=sum(map(samples_with_text, micro_batches)))
        total = count.total()
        self.texts = total["texts"]
        if self._observation and not total["tokens"]:
            raise LearnerError(
                "`learner.critic.observation_weight` trains the critic on observations, and the episodes of a batch "
                "have no token outside of their actions and after their first token; set it to 0"
            )
        self._per_token = samples / max(total["tokens"], 1.0)
        self._per_text = samples / max(self.texts, 1.0)

    def of(self, values: Mapping[str, Tensor], predictions: Mapping[str, Predictions]) -> Tensor | float:
        """Return the losses, summed, from the values of the critic's pass, and add them to the sums.

        `predictions` are those of the layout of the pass.
        """
        total: Tensor | float = 0.0
        if self._observation:
            logprob = values["observation"]
            nll = -self._per_token * logprob.sum()
            self._sums.add(observation_nll=nll / len(logprob))
            total = total + self._observation * nll
        if self._privileged:
            logprob = values["privileged"]
            nll = self._per_text * text_loss(logprob, predictions["privileged"])
            self._sums.add(privileged_nll=nll / len(logprob))
            total = total + self._privileged * nll
        return total


def samples_with_text(rows: Sequence[Row]) -> int:
    """Return the number of samples whose episode has a privileged text."""
    return sum(len(row.turns) for row in rows if row.episode.privileged)


def text_loss(logprob: Tensor, predictions: Predictions) -> Tensor:
    """Return -log p of the privileged text, the mean over the tokens of each sample's, summed over samples.

    Args:
        logprob: [..., tokens]; the backbones of other axes are summed too.
        predictions: the tokens of each sample follow each other, and samples ascend.
    """
    # Not bincount, which would synchronise with the device. Cloning keeps its layouts in host memory.
    sample = predictions.sample.to(logprob.device)
    length = torch.searchsorted(sample, sample, right=True) - torch.searchsorted(sample, sample)
    return -(logprob / length).sum()
