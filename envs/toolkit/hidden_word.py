"""The hidden word of a guessing game: drawn from the seed, or given as the reset option `word`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from envs.errors import EnvArgumentError, nearest


def choose_hidden_word(env_id: str, words: Sequence[str], rng: random.Random, options: Mapping[str, Any] | None) -> int:
    """Return the index in `words` of the word to hide. Raises EnvArgumentError for an unknown option or word."""
    index = rng.randrange(len(words))
    for name, value in (options or {}).items():
        if name != "word":
            raise EnvArgumentError(f"{env_id}: unknown reset option {name!r}: the only one is 'word'")
        if value not in words:
            raise EnvArgumentError(f"{env_id}: no word {value!r} in play: {nearest(str(value), words)}")
        index = words.index(value)
    return index
