"""How many episodes an import kept, and why it left out the others."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts by reason, with the first case of each: "item 3" of the file, and what was found there."""

    read: int = 0
    kept: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """One episode is left out for `reason`."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    @property
    def dropped(self) -> int:
        return sum(self.reasons.values())

    def lines(self) -> list[str]:
        """A line for each reason, the most frequent first."""
        order = sorted(self.reasons, key=lambda reason: -self.reasons[reason])
        width = max((len(str(count)) for count in self.reasons.values()), default=0)
        return [f"{self.reasons[reason]:>{width},}  {reason} (first: {self.first[reason]})" for reason in order]
