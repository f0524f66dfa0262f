"""Read the items of a JSON file that may be damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archer.errors import ConfigError
from archer.imports.import_counts import ImportCounts

SHOWN = 60
"""Characters of a file that a message quotes."""


def read_items(path: Path, counts: ImportCounts) -> Iterator[Any]:
    """Yield the items of a JSON list, or of JSON values one after the other, up to the first syntax error.

    The rest of the file after a syntax error is counted as one dropped episode. Raises ConfigError if the file cannot
    be read or is not JSON from the start.
    """
    text = _text(path)
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if at == len(text):
        raise ConfigError(f"{path} is empty; an LMRL-Gym file is a JSON list of conversations")
    if text[at] not in "[{":
        raise ConfigError(f"{path} begins with {quoted(text[at:])}; an LMRL-Gym file is a JSON list of conversations")
    listed = text[at] == "["
    at = _skip(text, at + 1) if listed else at
    number = 0
    while at < len(text) and not (listed and text[at] == "]"):
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
        at = _skip(text, at, separators=",")
    if listed and at == len(text):
        counts.read += 1
        counts.drop("the file ends before its list does", f"after conversation {number - 1}")


def quoted(value: object) -> str:
    """Return the beginning of a value in quotes, on one line, for a message."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return ascii(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")


def _text(path: Path) -> str:
    try:
        raw = path.expanduser().read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        utf16 = " It looks like UTF-16." if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} (line {line}) is {raw[error.start]:#04x}.{utf16} "
            "Convert it to UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _skip(text: str, at: int, separators: str = "") -> int:
    """Return the position of the next character that is neither space nor a separator."""
    while at < len(text) and (text[at].isspace() or text[at] in separators):
        at += 1
    return at
