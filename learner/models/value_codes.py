"""How the heads of a critic encode a value: as one number, or as a histogram over a support (HL-Gauss).

A code converts a head's outputs [..., width] to values [...], and returns the error of the outputs at a target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from learner.critic_config import CriticConfig


class ValueCode(nn.Module, ABC):
    """The code of a critic's heads.

    Attributes:
        width: number of outputs of a head.
    """

    width: int

    @abstractmethod
    def value(self, outputs: Tensor) -> Tensor:
        """Return the values [...] of a head's outputs [..., width], in units of reward."""

    @abstractmethod
    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the error [...] of outputs [..., width] at targets [...], which get no gradient."""


class ScalarCode(ValueCode):
    """One output, in units of `unit` of reward, with the squared error in these units."""

    width = 1

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def value(self, outputs: Tensor) -> Tensor:
        """Return unit * output."""
        return outputs.squeeze(-1) * self.unit

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return (output - target / unit)^2."""
        return (outputs.squeeze(-1) - target.detach() / self.unit).square()


class HistogramCode(ValueCode):
    """The logits of a histogram, with the cross-entropy at a Gaussian about the target (Farebrother et al., 2024).

    The probability of a bin is the Gaussian's mass between its edges, normalised over the support. A target outside the
    support counts as its nearest end.

    Args:
        support: centre of the first bin and of the last one, in units of reward.
        bins: number of bins.
        spread: standard deviation of the Gaussian in bin widths (the paper: 0.75).
    """

    centres: Tensor
    edges: Tensor

    def __init__(self, support: tuple[float, float], bins: int, spread: float) -> None:
        super().__init__()
        low, high = support
        step = (high - low) / (bins - 1)
        self.width = bins
        self.deviation = spread * step
        self.register_buffer("centres", torch.linspace(low, high, bins), persistent=False)
        self.register_buffer("edges", torch.linspace(low - step / 2, high + step / 2, bins + 1), persistent=False)

    def value(self, outputs: Tensor) -> Tensor:
        """Return the mean of the histogram."""
        return outputs.softmax(-1) @ self.centres

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy in nats between the Gaussian about the target and the histogram."""
        return -(self.mass(target) * outputs.log_softmax(-1)).sum(-1)

    def mass(self, target: Tensor) -> Tensor:
        """Return the probability of each bin under the Gaussian about the target: [..., bins], without gradient."""
        target = target.detach().clamp(float(self.centres[0]), float(self.centres[-1])).unsqueeze(-1)
        below = torch.special.ndtr((self.edges - target) / self.deviation)
        mass = below[..., 1:] - below[..., :-1]
        return mass / mass.sum(-1, keepdim=True)


def value_code(config: CriticConfig) -> ValueCode:
    """Return the code that `critic.loss` names."""
    if config.loss == "squared":
        return ScalarCode(config.value_unit)
    assert config.support is not None, "the run sets the support from the environment's returns"
    return HistogramCode(config.support, config.bins, config.bin_spread)
