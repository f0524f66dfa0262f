"""Tool calls: declaration of tools, parsing of calls, and the errors that a policy reads.

A call is one line of JSON, `{"tool": "order", "args": {"order": 512}}`. The keys `name` and `arguments`, on which chat
models are trained, are accepted as well. `Tool` declares a tool once; the argument check, the JSON schema for
`EnvSpec.tools` and the line that describes the tools to a policy are derived from it.

`Toolbox.read` takes any string. It returns a `Call` whose arguments match the declaration (text is valid Unicode
without control characters, integers have at most 53 bits) or raises `ToolError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from envs.errors import nearest

Kind: TypeAlias = Literal["string", "integer"]

MAX_ACTION = 4_000
"""Longer actions are refused, in characters."""
MAX_INTEGER = 2**53
EXAMPLE = '{"tool": NAME, "args": {...}}'


class ToolError(Exception):
    """A call cannot be done. The message is the observation that the policy reads."""


class Call(NamedTuple):
    """A call of an existing tool with arguments that match its declaration."""

    tool: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool.

    kind: JSON type.
    choices: the allowed values; empty if any value is allowed.
    max_length: greatest length of a string, in characters.
    optional: whether a call may omit the argument.
    """

    description: str
    kind: Kind = "string"
    choices: tuple[str, ...] = ()
    max_length: int = 100
    optional: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": self.kind, "description": self.description}
        if self.choices:
            found["enum"] = list(self.choices)
        elif self.kind == "string":
            found["maxLength"] = self.max_length
        return found

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value, or None."""
        if self.kind == "integer":
            if type(value) is not int or abs(value) > MAX_INTEGER:
                return "must be an integer"
            return None
        if not isinstance(value, str):
            return "must be a string"
        if self.choices:
            return None if value in self.choices else "must be one of " + ", ".join(self.choices)
        if len(value) > self.max_length:
            return f"is longer than {self.max_length} characters"
        return None if is_plain(value) else "has a character that no text has"


@dataclass(frozen=True)
class Tool:
    """A tool: name, one-sentence description, and arguments in order."""

    name: str
    description: str
    parameters: Mapping[str, Parameter]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the function, in the form that chat templates accept."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "properties": {name: parameter.schema for name, parameter in self.parameters.items()},
                    "required": [name for name, parameter in self.parameters.items() if not parameter.optional],
                    "additionalProperties": False,
                },
            },
        }

    def check(self, args: Mapping[str, Any]) -> None:
        """Raise ToolError for an argument that is unknown, missing or does not match its declaration."""
        for name in args:
            if name not in self.parameters:
                raise ToolError(f"{self.name} takes {describe_tool(self)}, not {_shown(name)}")
        for name, parameter in self.parameters.items():
            if name in args:
                fault = parameter.fault(args[name])
                if fault is not None:
                    raise ToolError(f"{name} {fault}")
            elif not parameter.optional:
                raise ToolError(f"{self.name} needs {name}")


class Toolbox:
    """The tools of one environment."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = {tool.name: tool for tool in tools}

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        return tuple(tool.schema for tool in self.tools.values())

    def describe(self) -> str:
        """Return one line that describes to a policy how to call the tools and which tools exist."""
        return f"Call a tool by {EXAMPLE}. Tools: {', '.join(map(describe_tool, self.tools.values()))}."

    def read(self, action: str) -> Call:
        """Parse the call in an action. Raises ToolError if the action is not a valid call."""
        if len(action) > MAX_ACTION:
            raise ToolError(f"longer than {MAX_ACTION} characters")
        try:
            said = _DECODER.decode(action)
        except (ValueError, RecursionError) as error:  # ValueError also covers integers with too many digits
            raise ToolError(f"not a call: write {EXAMPLE}") from error
        if not isinstance(said, dict):
            raise ToolError(f"not a call: write {EXAMPLE}")
        name = said.pop("tool", None) if "tool" in said else said.pop("name", None)
        args = said.pop("args", {}) if "args" in said else said.pop("arguments", {})
        if said or not isinstance(name, str) or not isinstance(args, dict):
            raise ToolError(f"not a call: write {EXAMPLE}")
        tool = self.tools.get(name)
        if tool is None:
            raise ToolError(f"no tool {_shown(name)}: {nearest(name[:20], self.tools)}")
        tool.check(args)
        return Call(name, args)


def write_call(tool: str, **args: Any) -> str:
    """Return the line that calls a tool; `Toolbox.read` parses it."""
    return json.dumps({"tool": tool, "args": args}, ensure_ascii=False)


def is_call(action: str) -> bool:
    """Return whether an action is meant as a call, well formed or not, and not as plain speech."""
    return action.lstrip()[:1] in ("{", "[")


def describe_tool(tool: Tool) -> str:
    """Return a tool as a signature, such as `order(order)`."""
    return f"{tool.name}({', '.join(tool.parameters)})"


def is_plain(text: str) -> bool:
    """Return whether a text is valid Unicode that contains no control character except newline."""
    if text.isascii():
        return text.isprintable() or text.replace("\n", "").isprintable()
    return not any(character != "\n" and _is_control(character) for character in text)


def _is_control(character: str) -> bool:
    """Return whether a character is a control character or a lone surrogate, which cannot be encoded."""
    return character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character <= "\udfff"


def _shown(text: str) -> str:
    """Return a text in a form that is safe to quote in an answer: short, and in ASCII."""
    return ascii(text[:20])


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
