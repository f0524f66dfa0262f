"""The table of episodes: filters, full-text search, order and pages over the index."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from archer.errors import ConfigError
from archer.viewer.store import Store

ROW = (
    "e.run, f.name AS file, e.row, e.episode_id, e.stage, e.evaluation, e.cycle, e.version, e.env, e.task_id, e.seed, "
    "e.ret, e.success, e.turns, e.tokens"
)
"""What a list of episodes shows of each, of `episodes e` and `files f`."""
_TEXTS = {"run": "e.run", "stage": "stage", "env": "env", "evaluation": "evaluation"}
_RANGES = {"return": "ret"} | {name: name for name in ("turns", "version", "cycle", "seed", "tokens")}
SORTS = {
    "newest": "created_at DESC",
    "return": "ret DESC",
    "return_up": "ret",
    "turns": "turns DESC",
    "turns_up": "turns",
    "version": "version DESC",
    "version_up": "version",
    "seed": "seed",
}
_SUCCESS = {"yes": "success", "no": "NOT success", "unknown": "success IS NULL"}
MOST_ROWS = 200
_MOST_TERMS = 8
_AROUND = 70


def find_episodes(store: Store, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return `total`, and the `rows` of the page that is asked for. Raises ConfigError for a wrong value.

    Args:
        asked: run, stage, env, evaluation; success (yes, no, unknown); min_X and max_X of return, turns, version,
            cycle, seed and tokens; q (words and quoted phrases, which must all occur); sort; offset; limit.
    """
    where, values = _conditions(asked)
    terms = search_terms(asked.get("q", ""))
    source = "episodes e"
    if terms:
        source += " JOIN texts t USING (id)"
        where += ["contains(t.lower, ?)"] * len(terms)
        values += terms
    condition = " AND ".join(where) or "true"
    sort = asked.get("sort") or "newest"
    if sort not in SORTS:
        raise ConfigError(f"sort {sort!r} is unknown; give one of {', '.join(SORTS)}")
    offset, limit = _whole(asked, "offset", 0), min(_whole(asked, "limit", 50), MOST_ROWS)
    # One pass over the texts gives the total too. Only the numbers of the rows are sorted; the rest of a row, and its
    # text, are read for one page alone.
    order = f"ORDER BY {SORTS[sort]}, e.id"
    found = store.query(
        f"SELECT e.id, count(*) OVER () AS total FROM {source} WHERE {condition} {order} LIMIT {limit} OFFSET {offset}",
        values,
    )
    total = found[0]["total"] if found else 0
    if not found and offset:
        total = store.query(f"SELECT count(*) AS n FROM {source} WHERE {condition}", values)[0]["n"]
    excerpt, joined = (", x.text AS text", "JOIN texts x ON x.id = e.id") if terms else ("", "")
    rows = store.query(
        f"SELECT {ROW}{excerpt} FROM episodes e JOIN files f ON f.file = e.file {joined} "
        f"WHERE e.id IN (SELECT unnest(?)) {order}",
        [[row["id"] for row in found]],
    )
    for row in rows:
        if terms:
            row["excerpt"] = excerpt_of(row.pop("text"), terms[0])
    return {"total": total, "rows": rows, "offset": offset, "limit": limit, "terms": terms}


def facets(store: Store) -> dict[str, Any]:
    """Return what there is to filter by: the values of run, stage and env with their counts, and the ranges."""
    counted = {
        name: store.query(f"SELECT {name} AS value, count(*) AS n FROM episodes GROUP BY 1 ORDER BY 1")
        for name in ("run", "stage", "env")
    }
    ranges = ", ".join(f"min({c}) AS min_{n}, max({c}) AS max_{n}" for n, c in _RANGES.items())
    return {**counted, "ranges": store.query(f"SELECT count(*) AS episodes, {ranges} FROM episodes")[0]}


def search_terms(text: str) -> list[str]:
    """Return the words and quoted phrases of a query in lower case. Raises ConfigError if there are too many."""
    try:
        terms = shlex.split(text.replace("'", "\\'"))
    except ValueError:  # a quotation mark without its partner
        terms = text.replace('"', " ").split()
    if len(terms) > _MOST_TERMS:
        raise ConfigError(f"a search has at most {_MOST_TERMS} words; put a longer text in quotation marks")
    return [term.lower() for term in terms]


def excerpt_of(text: str, term: str) -> str:
    """Return the surroundings of the first place of `term` in a text."""
    at = max(text.lower().find(term), 0)
    start, end = max(at - _AROUND, 0), at + len(term) + _AROUND
    return ("…" if start else "") + " ".join(text[start:end].split()) + ("…" if end < len(text) else "")


def _conditions(asked: Mapping[str, str]) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    for name, column in _TEXTS.items():
        if asked.get(name):
            where.append(f"{column} = ?")
            values.append(asked[name])
    if asked.get("success"):
        if asked["success"] not in _SUCCESS:
            raise ConfigError(f"success {asked['success']!r} is unknown; give yes, no or unknown")
        where.append(_SUCCESS[asked["success"]])
    for name, column in _RANGES.items():
        for bound, sign in ((f"min_{name}", ">="), (f"max_{name}", "<=")):
            if asked.get(bound):
                where.append(f"{column} {sign} ?")
                values.append(_number(asked, bound))
    return where, values


def _number(asked: Mapping[str, str], name: str) -> float:
    try:
        return float(asked[name])
    except ValueError:
        raise ConfigError(f"{name} is {asked[name]!r}; give a number") from None


def _whole(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name) or str(default)
    if not text.isdecimal() or len(text) > 9:
        raise ConfigError(f"{name} is {text!r}; give a whole number")
    return int(text)
