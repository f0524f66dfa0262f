"""Requests for samples, and the filter by which a view or a best share selects rows."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Self, get_args

import numpy as np

Unit = Literal["turn", "episode"]
Sampler = Literal["uniform", "prioritised"]
View = Literal["critic", "actor"]
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True)
class RowFilter:
    """Selects the episodes that meet every bound; None is no bound."""

    min_version: int | None = None
    """Lowest policy version of any token; demonstrations have no version and never meet this bound."""
    min_return: float | None = None
    """Lowest undiscounted return."""

    @classmethod
    def of_view(cls, view: View, min_version: int | None) -> Self:
        """Return the filter of a view. Raises ValueError if view and version do not go together."""
        if view not in VIEWS:
            raise ValueError(f"no view {view!r}; the views are {', '.join(VIEWS)}")
        if (view == "actor") != (min_version is not None):
            raise ValueError(
                f"view {view!r} with min_version={min_version}; the actor view takes one, the critic view none"
            )
        return cls(min_version)

    @property
    def everything(self) -> bool:
        """Whether there is no bound."""
        return self == RowFilter()

    def rows(self, oldest_version: np.ndarray, returns: np.ndarray) -> np.ndarray:
        """Return int64[k], the positions of the rows that pass, ascending; each argument has one number per row."""
        passes = np.ones(len(returns), dtype=bool)
        if self.min_version is not None:
            # Demonstrations have version -1: no policy wrote them, so they are never on-policy data.
            passes &= oldest_version >= max(self.min_version, 0)
        if self.min_return is not None:
            passes &= returns >= self.min_return
        return np.flatnonzero(passes)

    def __str__(self) -> str:
        """Return the bounds as words that follow "no episode"."""
        bounds = []
        if self.min_version is not None:
            bounds.append(f"with every token of version {max(self.min_version, 0)} or later")
        if self.min_return is not None:
            bounds.append(f"with a return of {self.min_return:g} or more")
        return "".join(f" {bound}" for bound in bounds)


def least_of_best(returns: np.ndarray, best: float) -> float:
    """Return the ceil(best * n)-th highest of `returns` [n], n >= 1: the lowest return within the best share."""
    # The decimal value of `best` counts: in floating point 0.1 * 30 is above 3, and its ceiling is 4.
    rank = math.ceil(Fraction(str(float(best))) * len(returns))
    return float(np.partition(returns, len(returns) - rank)[len(returns) - rank])


@dataclass(frozen=True)
class SampleRequest:
    """Draw `n` turns or episodes with replacement, in random order. Raises ValueError for an invalid request."""

    n: int
    """Number of draws, at least 1."""
    view: View = "critic"
    """`critic` is every episode. `actor` is the episodes all of whose tokens have a policy version of at least
    `min_version`; demonstrations are never among them."""
    unit: Unit = "turn"
    """What one draw is: a turn, or a whole episode."""
    sampler: Sampler = "uniform"
    """`uniform` draws each unit with equal probability. `prioritised` draws a turn in proportion to its priority to
    the power of `replay.priority_exponent`, and an episode in proportion to the sum over its turns."""
    min_version: int | None = None
    """Lowest policy version of the actor view; None for the critic view."""
    best: float | None = None
    """Share in (0, 1]: draw only from this share of the view's episodes with the highest undiscounted return over all
    shards. Episodes that tie with the last one are included, so the actual share may be larger."""
    messages: bool = False
    """Whether episodes carry `messages`, which learners do not read."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"sample of {self.n}; draw at least 1")
        for name, value, values in (("unit", self.unit, Unit), ("sampler", self.sampler, Sampler)):
            if value not in get_args(values):
                raise ValueError(f"no {name} {value!r}; the {name}s are {', '.join(get_args(values))}")
        if self.best is not None and not 0 < self.best <= 1:
            raise ValueError(f"best={self.best}; give the share of episodes to draw from, above 0 and at most 1")
        RowFilter.of_view(self.view, self.min_version)

    @property
    def only(self) -> RowFilter:
        """The filter of the view."""
        return RowFilter.of_view(self.view, self.min_version)
