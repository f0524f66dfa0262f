"""The counts of gaps between the log-probabilities of learner and engine."""

import math

import pytest
import torch

from learner.engine.sums import GAP_BOUNDS, Sums

pytestmark = pytest.mark.usefixtures("one_rank")


def test_gaps_are_counted_up_to_each_power_of_ten() -> None:
    """A gap at a bound counts below it, one that is no number above all, and a token of another policy never."""
    gaps = [0.0, GAP_BOUNDS[2], GAP_BOUNDS[2] * 1.01, 0.5, 1.0, 7.0, math.nan, 0.5]
    behaviour = torch.tensor(gaps, dtype=torch.float64)
    sums = Sums(torch.device("cpu"))
    sums.add(loss=2.0)
    sums.gaps(torch.zeros(len(gaps)), behaviour, torch.tensor([True] * 7 + [False]))
    assert sums.total() == {"loss": 2.0}
    counts = sums.gap_counts
    assert counts is not None
    assert counts[:-1].tolist() == [1, 0, 1, 1, 0, 0, 0, 2, 2]
    assert counts[-1] == math.inf
