"""Answers on disk: what an oracle said is kept, given again, and enough to play a run again without it.

The file is JSONL, a line for each answer: oracle, game, secret, question, answer. Lines are appended whole by one
write, so that several processes may share a file; a line that a kill tore is passed over. Of two answers to a question
the first counts, everywhere.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import NamedTuple

from envs.oracles.base import Enquiry, Oracle, OracleError


class _Key(NamedTuple):
    oracle: str
    game: str
    secret: str
    question: str


class Recorded:
    """An oracle whose answers are kept in `path`; with `replay` it is asked nothing that isn't there."""

    def __init__(self, oracle: Oracle, path: Path, *, replay: bool) -> None:
        self.name = oracle.name
        self.blocks = oracle.blocks and not replay
        self._oracle = oracle
        self._path = path
        self._replay = replay
        self._lock = threading.Lock()
        self._answers, self._ends_torn = _read(path, must_exist=replay)

    def answer(self, enquiry: Enquiry) -> str:
        key = _Key(self.name, enquiry.game, enquiry.secret, enquiry.question)
        known = self._answers.get(key)
        if known is not None:
            return known
        if self._replay:
            raise OracleError(
                f"replay: {self._path} holds no answer of {self.name} to {enquiry.question!r} about "
                f"{enquiry.secret!r}: play with replay=false to ask for it, or with the seed and policy that were "
                "recorded"
            )
        given = self._oracle.answer(enquiry)
        with self._lock:
            first = self._answers.setdefault(key, given)
            if first is given:
                self._append(key, given)
        return first

    def _append(self, key: _Key, given: str) -> None:
        # Escaped to ASCII, so that any string at all, also half a surrogate pair, is a line.
        line = json.dumps({**key._asdict(), "answer": given}) + "\n"
        start = "\n" if self._ends_torn else ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, (start + line).encode())
            finally:
                os.close(file)
        except OSError as error:
            raise OracleError(f"an oracle's answer can't be recorded in {self._path}: {error.strerror}") from error
        self._ends_torn = False


def _read(path: Path, *, must_exist: bool) -> tuple[dict[_Key, str], bool]:
    """The answers of a file, and whether its last line is torn."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if must_exist:
            raise OracleError(f"replay: there is no {path} to take an oracle's answers from") from None
        return {}, False
    except OSError as error:
        raise OracleError(f"an oracle's answers can't be read from {path}: {error.strerror}") from error
    answers: dict[_Key, str] = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            key, given = _Key(row["oracle"], row["game"], row["secret"], row["question"]), row["answer"]
        except (ValueError, TypeError, KeyError):
            continue  # torn by a kill, and asked again
        if isinstance(given, str):
            answers.setdefault(key, given)
    return answers, bool(text) and not text.endswith("\n")
