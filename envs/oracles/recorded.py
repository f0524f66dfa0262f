"""Recorded answers: an oracle whose answers are stored in a file and returned again, so that a run can be replayed.

The file is JSONL with one line per answer: oracle, game, secret, question, answer. Each line is appended by one write,
so several processes may share a file. A line that is incomplete, for example after a kill, is ignored. The first answer
to a question counts.
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
    """An oracle that stores its answers in `path`. With `replay`, it returns stored answers only."""

    def __init__(self, oracle: Oracle, path: Path, *, replay: bool) -> None:
        self.name = oracle.name
        self.blocks = oracle.blocks and not replay
        self._oracle = oracle
        self._path = path
        self._replay = replay
        self._lock = threading.Lock()
        self._answers, self._ends_incomplete = _read(path, must_exist=replay)

    def answer(self, enquiry: Enquiry) -> str:
        key = _Key(self.name, enquiry.game, enquiry.secret, enquiry.question)
        known = self._answers.get(key)
        if known is not None:
            return known
        if self._replay:
            raise OracleError(
                f"replay: {self._path} holds no answer of {self.name} to {enquiry.question!r} about "
                f"{enquiry.secret!r}: set replay=false to ask the oracle, or play the seed and policy that were "
                "recorded"
            )
        answer = self._oracle.answer(enquiry)
        with self._lock:
            first = self._answers.setdefault(key, answer)
            if first is answer:
                self._append(key, answer)
        return first

    def _append(self, key: _Key, answer: str) -> None:
        # JSON escaped to ASCII, so that every string, lone surrogates included, can be written.
        line = json.dumps({**key._asdict(), "answer": answer}) + "\n"
        start = "\n" if self._ends_incomplete else ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, (start + line).encode())
            finally:
                os.close(file)
        except OSError as error:
            raise OracleError(f"an oracle's answer cannot be recorded in {self._path}: {error.strerror}") from error
        self._ends_incomplete = False


def _read(path: Path, *, must_exist: bool) -> tuple[dict[_Key, str], bool]:
    """Return the answers of a file, and whether its last line is incomplete."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if must_exist:
            raise OracleError(f"replay: there is no {path} to read an oracle's answers from") from None
        return {}, False
    except OSError as error:
        raise OracleError(f"an oracle's answers cannot be read from {path}: {error.strerror}") from error
    answers: dict[_Key, str] = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            key, given = _Key(row["oracle"], row["game"], row["secret"], row["question"]), row["answer"]
        except (ValueError, TypeError, KeyError):
            continue  # an incomplete line; the oracle will be asked again
        if isinstance(given, str):
            answers.setdefault(key, given)
    return answers, bool(text) and not text.endswith("\n")
