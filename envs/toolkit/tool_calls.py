"""Tool calls: declaration of tools, parsing of calls, and the errors that a policy reads.

A call is one line of JSON, `{"tool": "order", "args": {"order": 512}}`. The keys `name` and `arguments`, on which chat
models are trained, are accepted as well. `Tool` declares a tool once; the argument check, the JSON schema for
`EnvSpec.tools` and the line that describes the tools to a policy are derived from it.

`Toolbox.read` takes any string. It returns a `Call` whose arguments match the declaration (text is valid Unicode
without control characters, integers have at most 53 bits) or raises `ToolError`.

A policy that writes calls in the format of its chat template reaches the environment through the same lines:
`write_call` writes a call that was parsed, and `write_rejected` one that could not be, `{"rejected_call": REASON}`.
`Toolbox.read` raises the reason as ToolError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from envs.errors import nearest

Kind: TypeAlias = Literal["string", "integer"]
CallForm: TypeAlias = Literal["json", "native"]
"""How a policy writes calls: as lines of JSON, or in the format of its chat template."""

MAX_ACTION = 4_000
"""Longer actions are refused, in characters."""
MAX_INTEGER = 2**53
MAX_REASON = 200
"""Longest reason of a rejected call, in characters."""
EXAMPLE = '{"tool": NAME, "args": {...}}'
REJECTED = "rejected_call"


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
    """The tools of one environment.

    calls: how the policy writes calls. The texts for a policy explain the lines of JSON only to a policy that writes
        them.
    """

    def __init__(self, tools: Sequence[Tool], calls: CallForm = "json") -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._calls = calls
        self._not_a_call = f"not a call: write {EXAMPLE}" if calls == "json" else "not a call of a tool"

    def written(self, calls: CallForm) -> Toolbox:
        """Return the same tools for a policy that writes calls in this form."""
        return Toolbox(tuple(self.tools.values()), calls)

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        return tuple(tool.schema for tool in self.tools.values())

    def describe(self) -> str:
        """Return one line that describes to a policy how to call the tools and which tools exist.

        It is empty for native calls, because the chat template describes the tools.
        """
        if self._calls == "native":
            return ""
        return f"Call a tool by {EXAMPLE}. Tools: {', '.join(map(describe_tool, self.tools.values()))}."

    def read(self, action: str) -> Call:
        """Parse the call in an action. Raises ToolError if the action is not a valid call."""
        if len(action) > MAX_ACTION:
            raise ToolError(f"longer than {MAX_ACTION} characters")
        said = _decode(action)
        call = _as_call(said)
        if call is None:
            raise ToolError(_reason(said) or self._not_a_call)
        tool = self.tools.get(call.tool)
        if tool is None:
            raise ToolError(f"no tool {_shown(call.tool)}: {nearest(call.tool[:20], self.tools)}")
        tool.check(call.args)
        return call


def write_call(tool: str, /, **args: Any) -> str:
    """Return the line that calls a tool; `Toolbox.read` parses it."""
    return json.dumps({"tool": tool, "args": args}, ensure_ascii=False)


def write_rejected(reason: str) -> str:
    """Return the line that stands for a call that could not be parsed; `Toolbox.read` raises its reason."""
    return json.dumps({REJECTED: reason})


def split_call(action: str) -> Call | None:
    """Return the call that an action writes as a line of JSON, of any tool, with any arguments; None if it is none."""
    return _as_call(_decode(action))


def is_call(action: str) -> bool:
    """Return whether an action is meant as a call, well formed or not, and not as plain speech."""
    return action.lstrip()[:1] in ("{", "[")


def _decode(action: str) -> Any:
    """Return the JSON value that an action is, or None."""
    try:
        return _DECODER.decode(action)
    except (ValueError, RecursionError):  # ValueError also covers integers with too many digits
        return None


def _as_call(said: Any) -> Call | None:
    if not isinstance(said, dict):
        return None
    name_key = "tool" if "tool" in said else "name"
    args_key = "args" if "args" in said else "arguments"
    name, args = said.get(name_key), said.get(args_key, {})
    if said.keys() - {name_key, args_key} or not isinstance(name, str) or not isinstance(args, dict):
        return None
    return Call(name, args)


def _reason(said: Any) -> str | None:
    """Return the reason that `write_rejected` wrote; None if the JSON value is something else."""
    reason = said.get(REJECTED) if isinstance(said, dict) and len(said) == 1 else None
    if isinstance(reason, str) and reason.isascii() and reason.isprintable() and len(reason) <= MAX_REASON:
        return reason
    return None


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
