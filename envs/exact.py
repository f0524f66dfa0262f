"""Exact action values Q* of small deterministic environments, by value iteration over the environment's own states.

They show how good a learnt critic is. An environment has them if it is `Solvable`: `key_door`, `maze` and `text_nav`
are. The time limit truncates and does not terminate, so that a critic bootstraps through it: Q* has no time limit.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from envs.base import PRIVILEGED, VALID_ACTIONS, Info, Step, TextEnv, unwrapped
from envs.errors import EnvArgumentError, EnvError
from envs.registry import factory, make

_TOLERANCE = 1e-12
_MOST_SWEEPS = 10_000
_MOST_VALUES = 500_000
"""Values held at once. Where each seed draws its own map, the values of earlier maps are dropped above this number."""


@runtime_checkable
class Solvable(Protocol):
    """A deterministic environment whose state is `info["privileged"]` and whose `info["valid_actions"]` is complete."""

    def step(self, action: str) -> Step: ...

    def restore(self, privileged: Mapping[str, Any]) -> Info:
        """Continue from the state that an `info["privileged"]` describes, and return the info of that state."""
        ...

    def value_key(self, privileged: Mapping[str, Any]) -> Hashable:
        """Return a key of a state. States with equal keys must have equal optimal values at every discount."""
        ...


class ExactValues:
    """Q* of one environment at one discount. States that have been solved are not solved again."""

    def __init__(self, env: TextEnv, rules: Solvable, gamma: float) -> None:
        self._env = env
        self._rules = rules
        self._gamma = gamma
        self._values: dict[Hashable, float] = {}

    def along(self, seed: int, actions: Sequence[str], turns: Collection[int] | None = None) -> list[dict[str, float]]:
        """Return Q* of each legal action at each state of the episode of `seed` in which `actions` are played.

        There is one entry for the state before each action, and one for the state after the last action unless the
        task ends with it; with `turns`, only those of these turns, counted from 0. Actions that the environment cannot
        parse have no value. Raises EnvStateError for actions after the end of the episode.
        """
        _, info = self._env.reset(seed=seed)
        states = [info[PRIVILEGED]]
        for action in actions:
            _, _, terminated, _, info = self._env.step(action)
            if not terminated:
                states.append(info[PRIVILEGED])
        return [self._at(state) for turn, state in enumerate(states) if turns is None or turn in turns]

    def _at(self, privileged: Mapping[str, Any]) -> dict[str, float]:
        """Return Q*(s, a) = r + gamma V*(s') of each legal action a."""
        if self._rules.value_key(privileged) not in self._values:
            self._solve(privileged)
        return {
            action: reward + (0.0 if after is None else self._gamma * self._values[self._rules.value_key(after)])
            for action, reward, after in self._outcomes(privileged)
        }

    def _outcomes(self, privileged: Mapping[str, Any]) -> list[tuple[str, float, Mapping[str, Any] | None]]:
        """Return each legal action with its reward and the next state, which is None if the task ends."""
        found: list[tuple[str, float, Mapping[str, Any] | None]] = []
        for action in self._rules.restore(privileged)[VALID_ACTIONS]:
            self._rules.restore(privileged)
            _, reward, terminated, _, info = self._rules.step(action)
            found.append((action, reward, None if terminated else info[PRIVILEGED]))
        return found

    def _solve(self, start: Mapping[str, Any]) -> None:
        """Add V* of all states that can be reached from `start`, by value iteration from 0."""
        if len(self._values) > _MOST_VALUES:
            self._values.clear()
        key = self._rules.value_key
        states = {key(start): start}
        edges: dict[Hashable, list[tuple[float, Hashable | None]]] = {}
        waiting = [start]
        while waiting:
            here = waiting.pop()
            ways = edges[key(here)] = []
            for _, reward, after in self._outcomes(here):
                ways.append((reward, None if after is None else key(after)))
                if after is not None and key(after) not in states:
                    states[key(after)] = after
                    waiting.append(after)
        values: dict[Hashable | None, float] = dict.fromkeys(edges, 0.0)
        values[None] = 0.0  # the end of the task
        for _ in range(_MOST_SWEEPS):
            change = 0.0
            for state, ways in edges.items():
                best = max(reward + self._gamma * values[after] for reward, after in ways)
                change = max(change, abs(best - values[state]))
                values[state] = best
            if change <= _TOLERANCE:
                self._values |= {state: values[state] for state in edges}
                return
        raise EnvError(
            f"{self._env.spec.id}: values still change by {change:g} after {_MOST_SWEEPS} sweeps at gamma "
            f"{self._gamma:g}; exact values need a gamma below 1, or an environment whose task can be ended from every "
            "state"
        )


def exact_values(env_id: str, kwargs: Mapping[str, Any], gamma: float) -> ExactValues | None:
    """Return the exact values of `make(env_id, **kwargs)` at discount `gamma`; None if its class is not `Solvable`.

    Raises EnvArgumentError for a `gamma` outside of (0, 1].
    """
    if not 0.0 < gamma <= 1.0:
        raise EnvArgumentError(f"{env_id}: gamma is {gamma}, must be above 0 and at most 1")
    maker = factory(env_id)
    if not (isinstance(maker, type) and issubclass(maker, Solvable)):
        return None  # without making it, because that may be expensive
    rules = unwrapped(make(env_id, **kwargs))
    return ExactValues(make(env_id, **kwargs), rules, gamma) if isinstance(rules, Solvable) else None
