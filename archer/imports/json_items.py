"""Read the items of a JSON file that may be damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archer.config.yaml_values import read_text
from archer.errors import ConfigError
from archer.imports.import_counts import ImportCounts

SHOWN = 60
"""Characters of a file that a message quotes."""

_GAP = re.compile(r"[\s,]*")


def read_items(path: Path, counts: ImportCounts) -> Iterator[Any]:
    """Yield the items of a JSON list, or of JSON values one after the other, up to the first syntax error.

    The rest of the file after a syntax error is counted as one dropped episode. Raises ConfigError if the file cannot
    be read or is not JSON from the start.
    """
    text = read_text(path).strip()
    listed = text.startswith("[")
    if not listed and not text.startswith("{"):
        fault = f"begins with {quoted(text)}" if text else "is empty"
        raise ConfigError(f"{path} {fault}; an LMRL-Gym file is a JSON list of conversations")
    decoder = json.JSONDecoder()
    at, number = int(listed), 0
    while (at := _skip_gap(text, at)) < len(text) and not (listed and text[at] == "]"):
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            counts.read += 1
            counts.drop("invalid JSON, up to the end of the file", f"conversation {number}, line {line}: {problem}")
            return
        yield item
        number += 1
    if listed and at == len(text):
        counts.read += 1
        counts.drop("the file ends before its list does", f"after conversation {number - 1}")


def _skip_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def quoted(value: object) -> str:
    """Return the beginning of a value in quotes, on one line, for a message."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return ascii(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")
