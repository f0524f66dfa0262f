"""One request for a sample: the arguments of `client.sample` in one object that validates itself."""

from dataclasses import dataclass
from typing import Literal, get_args

from buffer.sampling.row_filter import RowFilter, View

Unit = Literal["turn", "episode"]
Sampler = Literal["uniform", "prioritised"]


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
