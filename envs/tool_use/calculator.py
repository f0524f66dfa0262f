"""A calculator: arithmetic of one line, read by Python's parser and worked out by a list of what is allowed.

Nothing is evaluated by Python itself, and no number along the way gets larger than `LIMIT`, so that any line is
worked out at once.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from envs.toolkit.tool_calls import ToolError

Number: TypeAlias = int | float

MAX_LENGTH = 200
LIMIT = 10**15
MAX_EXPONENT = 64

_WORDS = ("abs", "max", "min", "round", "sqrt")
# A name may follow no digit, or the parser would warn of it on the terminal.
_ALLOWED = re.compile(rf"(?:[-+*/%(),. ]|\d|(?<![\d.])\b(?:{'|'.join(_WORDS)})\b)*")


def _power(base: Number, exponent: Number) -> Number:
    if abs(exponent) > MAX_EXPONENT:
        raise ToolError(f"the exponent is larger than {MAX_EXPONENT}")
    found = base**exponent
    if isinstance(found, complex):
        raise ToolError("no real number")
    return found


_BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "abs": abs,
    "max": lambda *numbers: max(numbers),
    "min": lambda *numbers: min(numbers),
    # Bounded below too: rounding an integer to -n digits works out 10**n.
    "round": lambda number, digits=0: round(number, max(-20, min(int(digits), 20))) if digits else round(number),
    "sqrt": math.sqrt,
}


def calculate(expression: str) -> str:
    """The value of an expression of numbers, + - * / // % ** , brackets and a few functions. Raises ToolError."""
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"longer than {MAX_LENGTH} characters")
    if not _ALLOWED.fullmatch(expression):
        raise ToolError(f"only numbers, + - * / // % ** ( ) and {', '.join(_WORDS)} are understood")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:  # the last two: too many brackets for the parser
        raise ToolError("this is not arithmetic") from error
    try:
        return write_number(_value(tree.body))
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    except (OverflowError, ValueError, TypeError) as error:  # a root of -1, too many arguments of a function
        raise ToolError("this has no value") from error


def write_number(number: Number) -> str:
    """A number as short as it can be said: 0.3 for 0.1 + 0.2, 4 for 8 / 2."""
    return str(number) if isinstance(number, int) else format(number, ".10g")


def _value(node: ast.AST) -> Number:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return _bounded(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _bounded(_BINARY[type(node.op)](_value(node.left), _value(node.right)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise ToolError("this is not arithmetic")
        return _bounded(_FUNCTIONS[node.func.id](*map(_value, node.args)))
    raise ToolError("this is not arithmetic")


def _bounded(number: Number) -> Number:
    if not abs(number) <= LIMIT:
        raise ToolError(f"a number here is larger than {LIMIT}")
    return number
