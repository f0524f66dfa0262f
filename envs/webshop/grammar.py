"""Actions in WebShop's grammar: `search[words]` and `click[name]`."""

from __future__ import annotations

import re

MAX_LENGTH = 300
"""Actions longer than this many characters are not read."""

# ASCII, or "\u017fearch" with a long s would pass for a search.
_ACTION = re.compile(r"\s*(search|click)\s*\[([^\[\]]*)\]\s*", re.IGNORECASE | re.ASCII)


def read_action(action: str) -> tuple[str, str] | None:
    """("search", words) or ("click", name), in lower case with single spaces; None where it is neither."""
    match = _ACTION.fullmatch(action) if len(action) <= MAX_LENGTH else None
    return (match[1].lower(), " ".join(match[2].lower().split())) if match else None
