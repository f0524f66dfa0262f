"""Search by BM25, through the library bm25s.

Measured on one core over items of 30 words, 5 words a search, the 50 best (searches a second on 10,000 items and on
100,000): bm25s 22,000 and 2,700, tantivy 11,000 and 1,500, FTS5 of the standard library's SQLite 93 and 13. FTS5 ranks
every row that matches, which is too slow here; of the two that reach 1,000, bm25s weighs 0.6 MB beside numpy, tantivy
17 MB.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np

MAX_WORDS = 50
"""Words of a search that are looked at."""

_WORD = re.compile(r"[a-z0-9]+")
_SMALL = frozenset(("a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "that", "the", "with"))


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, each once and in order, small ones left out."""
    return [word for word in dict.fromkeys(_WORD.findall(text.lower())) if word not in _SMALL]


class Index:
    """A BM25 index over `documents`; the position of a document is its number."""

    def __init__(self, documents: Sequence[str]) -> None:
        # Where numba is installed bm25s imports it, which takes longer than all the rest of this room.
        import bm25s

        # It sets its own logger to DEBUG, which whoever sets up logging would then read on every index.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        split = [split_words(document) for document in documents]
        # In order, not as a set has them: the index must be the same in every process.
        self._numbers = {word: number for number, word in enumerate(sorted({w for words in split for w in words}))}
        numbered = [[self._numbers[word] for word in words] for words in split]
        self._bm25 = bm25s.BM25(method="lucene", backend="numpy")
        self._bm25.index((numbered, self._numbers), create_empty_token=False, show_progress=False)

    def search(self, words: str, most: int) -> tuple[int, ...]:
        """Numbers of the `most` documents that match best, the best first, equals by number; none that matches no
        word."""
        wanted = [self._numbers[word] for word in split_words(words)[:MAX_WORDS] if word in self._numbers]
        if not wanted:
            return ()
        scores = self._bm25.get_scores(wanted)
        least = np.partition(scores, -most)[-most] if len(scores) > most else 0
        found = np.flatnonzero(scores >= least if least > 0 else scores > 0)
        order = np.lexsort((found, -scores[found]))[:most]
        return tuple(found[order].tolist())
