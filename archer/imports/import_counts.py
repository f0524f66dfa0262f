"""Count the episodes of an import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ImportCounts:
    """Episodes read, and dropped by reason, with the first case of each reason ("conversation 3, ...")."""

    read: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Count one dropped episode."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    @property
    def dropped(self) -> int:
        return sum(self.reasons.values())

    @property
    def kept(self) -> int:
        return self.read - self.dropped

    def lines(self) -> list[str]:
        """Return one line for each reason, the most frequent reason first."""
        order = sorted(self.reasons, key=lambda reason: -self.reasons[reason])
        width = max((len(f"{count:,}") for count in self.reasons.values()), default=0)
        return [f"{self.reasons[reason]:>{width},}  {reason} (first: {self.first[reason]})" for reason in order]
