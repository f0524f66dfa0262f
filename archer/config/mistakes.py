"""Turn pydantic's errors about a configuration into sentences: what is wrong, and what is allowed."""

import difflib
from collections.abc import Iterable

from pydantic_core import ErrorDetails

from archer.config.fields import fields
from archer.config.yaml_values import describe


def sentence(error: ErrorDetails, path: str) -> str:
    """Return one error of pydantic, about the field at `path`, as a sentence."""
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return _unknown_key(path)
    if error["type"] == "value_error":  # raised by a validator of ours
        text = str(error["ctx"]["error"])
        return f"`{path}` {text}" if path else text
    field = fields().get(path)
    allowed = f"it must be {field.allowed}" if field else error["msg"]
    fault = "missing" if error["type"] == "missing" else describe(error["input"])
    return f"`{path}` is {fault}: {allowed}"


def _unknown_key(path: str) -> str:
    """Suggest a similar key of the same section, else the same key of other sections, else a similar path."""
    known = fields()
    section, _, key = path.rpartition(".")
    if section in known and (reason := known[section].not_offered.get(key)):
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
