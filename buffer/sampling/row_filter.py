"""Which episodes a caller sees: one filter over numbers kept per row, the same in client, ticket, shard and store."""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal, Self, get_args

import numpy as np

View = Literal["critic", "actor"]
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True)
class RowFilter:
    """Episodes that meet every bound given; None bounds nothing."""

    min_version: int | None = None
    """The lowest policy version that any of its tokens may have; demonstrations, which have none, never meet it."""
    min_return: float | None = None
    """The lowest undiscounted return."""

    @classmethod
    def of_view(cls, view: View, min_version: int | None) -> Self:
        """The filter of a view by its name. Raises ValueError where the two do not go together."""
        if view not in VIEWS:
            raise ValueError(f"no view {view!r}; the views are {', '.join(VIEWS)}")
        if (view == "actor") != (min_version is not None):
            raise ValueError(
                f"view {view!r} with min_version={min_version}; the actor view takes one, the critic view none"
            )
        return cls(min_version)

    @property
    def everything(self) -> bool:
        """Whether every row passes."""
        return self == RowFilter()

    def rows(self, oldest_version: np.ndarray, returns: np.ndarray) -> np.ndarray:
        """int64[k], positions of the rows that pass, rising; both arguments hold one number per row."""
        passes = np.ones(len(returns), dtype=bool)
        if self.min_version is not None:
            # Demonstrations carry version -1 and were written by no policy: never on-policy data.
            passes &= oldest_version >= max(self.min_version, 0)
        if self.min_return is not None:
            passes &= returns >= self.min_return
        return np.flatnonzero(passes)

    def as_dict(self) -> dict[str, Any]:
        """The bounds, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The bounds in words that follow "no episode"; empty where there are none."""
        bounds = []
        if self.min_version is not None:
            bounds.append(f"with every token of version {max(self.min_version, 0)} or later")
        if self.min_return is not None:
            bounds.append(f"with a return of {self.min_return:g} or more")
        return "".join(f" {bound}" for bound in bounds)


def least_of_best(returns: np.ndarray, best: float) -> float:
    """The lowest return within the best share `best` of `returns` [n], n at least 1: the ceil(best * n)-th highest."""
    # As written, not as stored: in floating point 0.1 * 30 is above 3, and its ceiling 4.
    rank = math.ceil(Fraction(str(float(best))) * len(returns))
    return float(np.partition(returns, len(returns) - rank)[len(returns) - rank])
