"""A calculator for one line of arithmetic, parsed by Python's parser and evaluated by a list of permitted operations.

Python does not evaluate the line, and no intermediate number exceeds `LIMIT`, so every line is evaluated quickly.
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
# A name must not follow a digit, because the parser would print a warning.
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
    # Bounded below too, because rounding an integer to -n digits computes 10**n.
    "round": lambda number, digits=0: round(number, max(-20, min(int(digits), 20))) if digits else round(number),
    "sqrt": math.sqrt,
}


def calculate(expression: str) -> str:
    """Return the value of an expression of numbers, + - * / // % **, brackets and some functions. Raises ToolError."""
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"longer than {MAX_LENGTH} characters")
    if not _ALLOWED.fullmatch(expression):
        raise ToolError(f"only numbers, + - * / // % ** ( ) and {', '.join(_WORDS)} are understood")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:  # the last two for too many nested brackets
        raise ToolError("this is not arithmetic") from error
    try:
        return write_number(_value(tree.body))
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    except (OverflowError, ValueError, TypeError) as error:  # such as a root of -1
        raise ToolError("this has no value") from error


def write_number(number: Number) -> str:
    """Return the shortest text of a number: 0.3 for 0.1 + 0.2, 4 for 8 / 2."""
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
