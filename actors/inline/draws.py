"""Random draws of tokens."""

from __future__ import annotations

import numpy as np


def draw(logprobs: np.ndarray, of: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return one independent draw for each entry of `of`, int64 [draws], from the distribution of row `of[i]`.

    Several draws of one row are as many independent draws: their counts are one multinomial draw.

    Args:
        logprobs: float32 [rows, vocabulary].
        of: int64 [draws].
    """
    rows, size = logprobs.shape
    cumulative = np.exp(logprobs, dtype=np.float64).cumsum(-1)
    # Row r occupies the interval [r, r + 1) of one increasing sequence, so that a single search serves all rows.
    cumulative /= cumulative[:, -1:]
    cumulative += np.arange(rows)[:, None]
    found = np.searchsorted(cumulative.reshape(-1), of + generator.random(len(of)), side="right")
    # The sum of a row's number and a random number just below 1 may round up to the next row.
    return np.minimum(found - of * size, size - 1)
