"""Calls of tools: how an action says one, what each tool takes, and how what went wrong is answered.

One call is one line of JSON, `{"tool": "order", "args": {"order": 512}}`; `name` and `arguments`, the keys that chat
models are trained on, are understood as well. What a tool takes is declared once, as `Tool`: from there come the check
of the arguments, the JSON schema for `EnvSpec.tools` and the line that tells a policy of its tools.

Any string may come in. Out comes a `Call` whose arguments are as declared (text is valid Unicode without control
characters, numbers are within 53 bits), or a `ToolError` that says what was wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from envs.errors import nearest

Kind: TypeAlias = Literal["string", "integer"]

MAX_ACTION = 4_000
"""Actions longer than this many characters are not read."""
MAX_INTEGER = 2**53
EXAMPLE = '{"tool": NAME, "args": {...}}'


class ToolError(Exception):
    """A call that can't be done; the message is the observation, and names what was wrong."""


class Call(NamedTuple):
    """A call whose tool exists and whose arguments are as that tool declares them."""

    tool: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool.

    kind: its JSON type.
    choices: the only values it may have; empty for any.
    max_length: of a string, in characters.
    optional: whether a call may leave it out.
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
        """What is wrong with a value, or None."""
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
    """A tool: its name, a sentence on what it does, and its arguments in order."""

    name: str
    description: str
    parameters: Mapping[str, Parameter]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the function, as chat templates take it."""
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
        """Raise ToolError for an argument that is unknown, missing or not as declared."""
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
        """One line that tells a policy how to call and what there is."""
        return f"Call a tool by {EXAMPLE}. Tools: {', '.join(map(describe_tool, self.tools.values()))}."

    def read(self, action: str) -> Call:
        """The call that an action says. Raises ToolError where it says none."""
        if len(action) > MAX_ACTION:
            raise ToolError(f"longer than {MAX_ACTION} characters")
        try:
            said = _DECODER.decode(action)
        except (ValueError, RecursionError) as error:  # also integers of too many digits
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
    """The line that calls a tool, which `Toolbox.read` reads back."""
    return json.dumps({"tool": tool, "args": args}, ensure_ascii=False)


def is_call(action: str) -> bool:
    """Whether an action is meant as a call, well formed or not, rather than as something to say."""
    return action.lstrip()[:1] in ("{", "[")


def describe_tool(tool: Tool) -> str:
    """A tool as a signature: `order(order)`."""
    return f"{tool.name}({', '.join(tool.parameters)})"


def is_plain(text: str) -> bool:
    """Whether a text is valid Unicode, so that it can be stored and printed, with no control character but newline."""
    if text.isascii():
        return text.isprintable() or text.replace("\n", "").isprintable()
    return not any(character != "\n" and _is_control(character) for character in text)


def _is_control(character: str) -> bool:
    """Control characters and lone surrogates, which can't be encoded."""
    return character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character <= "\udfff"


def _shown(text: str) -> str:
    """A text of anyone's, fit to be quoted in an answer: short, and in ASCII."""
    return ascii(text[:20])


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
