"""Read the items of a JSON file that may be damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from archer.config.yaml_values import decoded
from archer.errors import ConfigError

SHOWN = 60
"""Characters of a file that a message quotes."""

Dropped = list[tuple[str, str]]
"""For each dropped episode: the reason, and its place in the file ("conversation 3, ...")."""

_ITEM = re.compile(r"[^\s,]")


def read_items(path: Path, dropped: Dropped) -> Iterator[Any]:
    """Yield the items of a JSON list, or of JSON values one after the other, up to the first syntax error.

    After a syntax error, the rest of the file is appended to `dropped` as one episode. Raises ConfigError if the file
    cannot be read or is not JSON from the start.
    """
    text = decoded(_content(path), path).strip()
    listed = text.startswith("[")
    if not listed and not text.startswith("{"):
        fault = f"begins with {quoted(text)}" if text else "is empty"
        raise ConfigError(f"{path} {fault}; an LMRL-Gym file is a JSON list of conversations")
    decoder = json.JSONDecoder()
    at, number = int(listed), 0
    while (found := _ITEM.search(text, at)) and not (listed and found[0] == "]"):
        at = found.start()
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            where = f"conversation {number}, line {line}: {problem}"
            dropped.append(("invalid JSON, up to the end of the file", where))
            return
        yield item
        number += 1
    if listed and found is None:
        dropped.append(("the file ends before its list does", f"after conversation {number - 1}"))


def _content(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if they begin as gzip or zstd do. Raises ConfigError."""
    try:
        raw = path.expanduser().read_bytes()
        for kind, mark in (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd")):
            if raw.startswith(mark):
                with pa.CompressedInputStream(pa.BufferReader(raw), kind) as stream:
                    return bytes(stream.read())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    return raw


def quoted(value: object) -> str:
    """Return the beginning of a value in quotes, on one line, for a message."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return ascii(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")
