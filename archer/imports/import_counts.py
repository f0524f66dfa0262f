"""Count the episodes of an import."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ImportCounts:
    """Episodes read, and dropped by reason, with the first case of each reason ("conversation 3, ...")."""

    read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Count one dropped episode."""
        self.reasons[reason] += 1
        self.first.setdefault(reason, where)

    @property
    def kept(self) -> int:
        return self.read - self.reasons.total()

    def lines(self) -> list[str]:
        """Return one line for each reason, the most frequent reason first."""
        width = len(f"{max(self.reasons.values(), default=0):,}")
        order = self.reasons.most_common()
        return [f"{count:>{width},}  {reason} (first: {self.first[reason]})" for reason, count in order]
