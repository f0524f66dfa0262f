"""One rank's share of a global batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learner.passes.rows import Row, deal


@dataclass(frozen=True)
class Batch:
    """The rows of one rank in one step.

    Attributes:
        samples: number of samples (turns) of the global batch.
        waited_s: seconds that rank 0 waited for fresh actions.
    """

    micro_batches: list[list[Row]]
    samples: int
    waited_s: float = 0.0


def split(rows: Sequence[Row], ranks: int, micro_batch: int, waited_s: float = 0.0) -> list[Batch]:
    """Return each rank's share of a global batch. Raises LearnerError if there are fewer rows than ranks."""
    samples = sum(len(row.turns) for row in rows)
    return [Batch(share, samples, waited_s) for share in deal(rows, ranks, micro_batch)]
