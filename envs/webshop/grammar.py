"""Parses actions in WebShop's grammar: `search[words]` and `click[name]`."""

from __future__ import annotations

import re

MAX_LENGTH = 300
"""Longer actions are refused, in characters."""

# ASCII only; otherwise "\u017fearch" with a long s would match "search".
_ACTION = re.compile(r"\s*(search|click)\s*\[([^\[\]]*)\]\s*", re.IGNORECASE | re.ASCII)


def read_action(action: str) -> tuple[str, str] | None:
    """Return ("search", words) or ("click", name), in lower case with single spaces; None for other text."""
    match = _ACTION.fullmatch(action) if len(action) <= MAX_LENGTH else None
    return (match[1].lower(), " ".join(match[2].lower().split())) if match else None
