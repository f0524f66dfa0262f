"""The two kinds of phase in a cycle: draws from replay with replacement, and a sweep over the cycle's own episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from buffer.sampling.request import Sampler, SampleRequest, Unit
from learner.errors import LearnerError


@dataclass(frozen=True)
class Draws:
    """Optimizer steps on batches that are drawn from replay.

    Attributes:
        name: "clone", "critic" or "actor", the prefix of the phase's metrics.
        batch: samples per step, in units of `unit`.
        epochs: passes over the phase's batches.
        fresh: fresh actions per state.
        logprobs: whether the steps read the behaviour log-probabilities of fresh actions.
        distinct: whether the fresh actions of a state are merged, with shares, and used by all samples of the state.
        bootstraps: whether each row has all turns of its episode once, and fresh actions after its last turn too
            unless it terminated there.
        max_staleness: draw only from episodes at most this many policy versions old; None draws from all.
        best: draw only from this share of the episodes, those with the highest return; None draws from all.
        importance: exponent of the importance weights of prioritised draws.
        recent_share: share of each batch that is drawn from the episodes of the last `recent_versions` policy
            versions. The rest is drawn like a batch without such a share, and all of it if there is no such episode.
        recent_repeats: most draws of each recent episode (or turn) in the phase, in the mean; they bound the share.
        updates_per_turn: steps for each turn that the cycle has collected, in place of `steps`; None keeps `steps`.
        extra: steps in addition to either.
        trains_policy: whether the steps change the policy, so that it is broadcast at the end of the cycle.
    """

    name: str
    steps: int
    batch: int
    unit: Unit = "episode"
    epochs: int = 1
    fresh: int = 0
    logprobs: bool = False
    distinct: bool = False
    bootstraps: bool = False
    max_staleness: int | None = None
    best: float | None = None
    sampler: Sampler = "uniform"
    importance: float = 0.0
    recent_share: float = 0.0
    recent_versions: int = 1
    recent_repeats: float = float("inf")
    updates_per_turn: float | None = None
    extra: int = 0
    trains_policy: bool = True

    @property
    def most_recent(self) -> int:
        """The largest number of samples of a batch that are drawn from recent episodes."""
        return round(self.recent_share * self.batch)

    def recent(self, held: int) -> int:
        """Return the number of samples of a batch from recent episodes, if replay holds `held` of these.

        After the first rollouts few episodes are recent. A critic that draws each of them a hundred times memorises
        how they ended, and its advantages of other actions are then noise.
        """
        return int(min(self.most_recent, self.recent_repeats * held / self.steps))

    def counted(self, new_turns: int | None) -> Draws:
        """Return these draws with their number of steps final, `extra` included.

        `new_turns` is the number of turns that the cycle has collected, None in an offline cycle.
        """
        steps = self.steps
        if self.updates_per_turn is not None and new_turns is not None:
            steps = max(1, round(self.updates_per_turn * new_turns))
        return replace(self, steps=steps + self.extra, updates_per_turn=None, extra=0)

    def request(self, samples: int, version: int) -> SampleRequest:
        """Return the request for a number of samples under the policy version `version`."""
        return SampleRequest(
            samples,
            view="critic" if self.max_staleness is None else "actor",
            unit=self.unit,
            sampler=self.sampler,
            min_version=None if self.max_staleness is None else max(version - self.max_staleness, 0),
            best=self.best,
        )

    def recent_request(self, samples: int, version: int) -> SampleRequest:
        """Return the request for samples of recent episodes; demonstrations are never among them."""
        oldest = max(version - self.recent_versions + 1, 0)
        return replace(self.request(samples, version), view="actor", min_version=oldest)

    def require_enough(self, held: int) -> None:
        """Raise LearnerError if a batch is larger than the number of samples that are held, so that it repeats some."""
        if self.batch > held:
            raise LearnerError(
                f"a step of the {self.name} phase draws {self.batch} {self.unit}s, and there are {held}; lower the "
                "phase's `batch`, or raise episodes_per_cycle or the number of demonstrations"
            )


@dataclass(frozen=True)
class Sweep:
    """Optimizer steps on batches of recent episodes, each episode in one batch per epoch.

    Attributes, beside those of the same names in `Draws`:
        batch: episodes per step.
        group: number of episodes of one environment seed, which are swept together.
    """

    name: str
    batch: int
    epochs: int = 1
    max_staleness: int = 0
    group: int = 1
    trains_policy: bool = True


Phase = Draws | Sweep
