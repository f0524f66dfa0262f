"""Turn pydantic's errors about a configuration into sentences: what is wrong, and what is allowed."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from archer.config.fields import fields
from archer.config.yaml_values import describe


def mistakes(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the path of a field and a sentence about it for each error; the path of the whole tree is ""."""
    for item in error.errors(include_url=False):
        # Below a union, pydantic inserts the type that it tried, such as list[str].
        path = ".".join(str(part) for part in item["loc"] if not str(part).endswith("]"))
        if item["type"] in ("extra_forbidden", "invalid_key"):
            yield path, _unknown_key(path, str(item["loc"][-1]))
        elif item["type"] == "value_error":  # raised by a validator of ours
            yield path, f"`{path}` {item['ctx']['error']}" if path else str(item["ctx"]["error"])
        else:
            field = fields().get(path)
            fault = "missing" if item["type"] == "missing" else describe(item["input"])
            yield path, f"`{path}` is {fault}: {f'it must be {field.allowed}' if field else item['msg']}"


def truth_values(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield, in the form of `mistakes`, each true or false where a number belongs; pydantic reads them as 1 and 0."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        field = fields().get(path)
        if field is None:  # an unknown key, or an argument of an environment
            continue
        if isinstance(value, Mapping):
            yield from truth_values(value, f"{path}.")
        found = value if isinstance(value, list) else [value]
        if any(isinstance(item, bool) for item in found) and "true or false" not in field.allowed:
            yield path, f"`{path}` is {describe(value)}: it must be {field.allowed}"


def _unknown_key(path: str, key: str) -> str:
    """Suggest a similar key of the same section, else the same key of other sections, else a similar path."""
    if "." in key:
        return f"unknown key `{path}`; dots join keys only on the command line, a file nests them"
    known = fields()
    section = path.rpartition(".")[0]
    if section and (reason := known[section].not_offered.get(key)):
        return f"`{path}` is not offered: {reason}"
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    if near := _nearest(key.lower(), siblings, cutoff=0.5):
        guesses = [siblings[near]]
    else:
        elsewhere = [other for other in known if other.rpartition(".")[2] == key][:4]
        guesses = elsewhere or [other for other in [_nearest(path, known, cutoff=0.6)] if other]
    if guesses:
        return f"unknown key `{path}`; did you mean {' or '.join(f'`{guess}`' for guess in guesses)}?"
    return f"unknown key `{path}`; valid keys here: {', '.join(siblings)}"


def _nearest(word: str, candidates: Iterable[str], *, cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)), None)
