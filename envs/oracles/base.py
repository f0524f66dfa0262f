"""An oracle: one question about one secret in, one answer out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from envs.errors import EnvError


class OracleError(EnvError):
    """An oracle has no answer: its endpoint fails, or it may only repeat answers and doesn't have this one."""


@dataclass(frozen=True)
class Enquiry:
    """What is asked.

    game: id of the environment. secret: what is hidden. question: the player's words.
    instructions: what somebody who knows the secret is told to do, the secret included.
    """

    game: str
    secret: str
    question: str
    instructions: str


class Oracle(Protocol):
    """Shared by the environments of a process that have the same settings, and called by several threads at once."""

    name: str
    """What decides its answers: answers under another name are another oracle's."""
    blocks: bool
    """Whether an answer may take long, so that its environment must not run on the event loop."""

    def answer(self, enquiry: Enquiry) -> str:
        """The answer, as it was given. Raises OracleError."""
        ...


class TableOracle:
    """The environment's own table: `look_up` answers at once."""

    name = "table"
    blocks = False

    def __init__(self, look_up: Callable[[Enquiry], str]) -> None:
        self._look_up = look_up

    def answer(self, enquiry: Enquiry) -> str:
        return self._look_up(enquiry)
