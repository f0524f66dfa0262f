"""The oracle interface: answers one question about one secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from envs.errors import EnvError


class OracleError(EnvError):
    """The oracle has no answer: its endpoint fails, or it replays recorded answers and does not hold this one."""


@dataclass(frozen=True)
class Enquiry:
    """One question for an oracle.

    game: id of the environment.
    secret: the hidden value.
    question: the words of the player.
    instructions: the system prompt for a model, which contains the secret.
    """

    game: str
    secret: str
    question: str
    instructions: str


class Oracle(Protocol):
    """An oracle. Environments of a process that have equal settings share it, and several threads may call it."""

    name: str
    """Identifies what determines the answers. Recorded answers are stored under this name."""
    blocks: bool
    """Whether an answer may take long, so that the environment must not run on the event loop."""

    def answer(self, enquiry: Enquiry) -> str:
        """Return the answer, unchanged. Raises OracleError."""
        ...


class TableOracle:
    """Answers from the environment's own table by calling `look_up`."""

    name = "table"
    blocks = False

    def __init__(self, look_up: Callable[[Enquiry], str]) -> None:
        self._look_up = look_up

    def answer(self, enquiry: Enquiry) -> str:
        return self._look_up(enquiry)
