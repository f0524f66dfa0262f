"""The objects behind the tools: files, tables and meetings, and the state by which a task is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from envs.tool_use.agenda import Agenda, Meeting
from envs.tool_use.calculator import calculate
from envs.tool_use.database import Database, Rows
from envs.tool_use.files import Files
from envs.toolkit.tool_calls import Call


@dataclass
class Content:
    """The content at the beginning of an episode."""

    files: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    meetings: list[Meeting] = field(default_factory=list)


class State(NamedTuple):
    """Everything that a tool can change, in a form that can be compared."""

    files: dict[str, str]
    rows: dict[str, list[tuple[Any, ...]]]
    meetings: frozenset[Meeting]


class Desktop:
    """Files, tables and meetings of one environment."""

    def __init__(self) -> None:
        self._database = Database()
        self._files = Files({})
        self._agenda = Agenda([])

    def fill(self, content: Content) -> None:
        """Begin an episode with this content."""
        self._files = Files(content.files)
        self._agenda = Agenda(content.meetings)
        self._database.fill(content.rows)
        self._tools: Mapping[str, Callable[..., str]] = {
            "list": self._files.list,
            "read": self._files.read,
            "write": self._files.write,
            "edit": self._files.edit,
            "move": self._files.move,
            "delete": self._files.delete,
            "sql": self._database.query,
            "calc": calculate,
            "agenda": self._agenda.agenda,
            "book": self._agenda.book,
            "shift": self._agenda.shift,
            "cancel": self._agenda.cancel,
        }

    def do(self, call: Call) -> str:
        """Return the answer of a tool. If the call cannot be done, raises ToolError and changes nothing."""
        return self._tools[call.tool](**call.args)

    def state(self) -> State:
        """Return the state. White space around the text of a file is ignored."""
        files = {path: text.strip() for path, text in self._files.files.items()}
        return State(files, self._database.rows(), frozenset(self._agenda.meetings.values()))

    def close(self) -> None:
        self._database.close()
