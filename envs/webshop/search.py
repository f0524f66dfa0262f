"""Search by BM25, with the library bm25s.

Measured on one core with items of 30 words, 5 words per search and the 50 best results, in searches per second on
10,000 and on 100,000 items: bm25s 22,000 and 2,700; tantivy 11,000 and 1,500; FTS5 of the standard library's SQLite 93
and 13. FTS5 ranks every matching row, which is too slow here. bm25s adds 0.6 MB to numpy, tantivy 17 MB.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np

MAX_WORDS = 50
"""Number of words of a search that are used."""

_WORD = re.compile(r"[a-z0-9]+")
_SMALL = frozenset(("a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "that", "the", "with"))


def split_words(text: str) -> list[str]:
    """Return the distinct words of a text in lower case and in order, without small words."""
    return [word for word in dict.fromkeys(_WORD.findall(text.lower())) if word not in _SMALL]


class Index:
    """A BM25 index over `documents`. The number of a document is its position."""

    def __init__(self, documents: Sequence[str]) -> None:
        # Imported here, because bm25s imports numba if it is installed, which is slow.
        import bm25s

        # bm25s sets its logger to DEBUG, which would log every index once logging is configured.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        split = [split_words(document) for document in documents]
        # Sorted, because the index must be the same in every process.
        self._numbers = {word: number for number, word in enumerate(sorted({w for words in split for w in words}))}
        numbered = [[self._numbers[word] for word in words] for words in split]
        self._bm25 = bm25s.BM25(method="lucene", backend="numpy")
        self._bm25.index((numbered, self._numbers), create_empty_token=False, show_progress=False)

    def search(self, words: str, most: int) -> tuple[int, ...]:
        """Return the numbers of the `most` best documents, best first, ties by number, without documents that match no
        word.
        """
        wanted = [self._numbers[word] for word in split_words(words)[:MAX_WORDS] if word in self._numbers]
        if not wanted:
            return ()
        scores = self._bm25.get_scores(wanted)
        least = np.partition(scores, -most)[-most] if len(scores) > most else 0
        found = np.flatnonzero(scores >= least if least > 0 else scores > 0)
        order = np.lexsort((found, -scores[found]))[:most]
        return tuple(found[order].tolist())
