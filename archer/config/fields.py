"""What the fields of the configuration are called, what they may hold, and what a mistyped one was meant to be."""

import difflib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


@dataclass(frozen=True)
class FieldDoc:
    """One line of `archer config --fields`. `default` is YAML-like text; `section` marks a field with keys below it."""

    path: str
    allowed: str
    default: str
    description: str
    section: bool


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """Models that a field may hold: one for a plain section, several for a union of them, none for a leaf."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for part in get_args(annotation) for model in submodels(part)]
    return []


def document(model: type[BaseModel], prefix: str = "") -> Iterator[FieldDoc]:
    """Every field below `model`, parents before their children."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        below = submodels(field.annotation)
        yield FieldDoc(path, _allowed(field), _default(field), field.description or "", bool(below))
        for child in below:
            yield from document(child, f"{path}.")


def unknown_keys(tree: Any, model: type[BaseModel]) -> list[tuple[str, str]]:
    """(dotted path, sentence) for each key of `tree` that no model has, with the nearest valid key."""
    everything = [doc.path for doc in document(model)]
    return [
        (path, f"`{path}` is not offered: {why}" if why else _unknown_sentence(path, siblings, everything))
        for path, siblings, why in _unknown(tree, [model], "")
    ]


def allowed_text(model: type[BaseModel], path: str) -> str:
    """What the field at a dotted path may hold, as the end of a sentence; empty where the path is no field."""
    field = _field(model, path.split("."))
    if field is None:
        return ""
    allowed = _allowed(field)
    return f"it must be {allowed}" if allowed else ""


def describe_value(value: Any) -> str:
    """A value as a person would name it in an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value[:80]!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)


def nearest(word: str, candidates: list[str], cutoff: float = 0.5) -> str | None:
    """The candidate most like `word`, or None where none is."""
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=cutoff)
    return close[0] if close else None


def _unknown(tree: Any, models: list[type[BaseModel]], prefix: str) -> Iterator[tuple[str, list[str], str | None]]:
    """Path, its siblings and, where a model's `NOT_OFFERED` says so, why there is no such key."""
    if not isinstance(tree, dict):
        return
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    reasons = {name: why for model in models for name, why in getattr(model, "NOT_OFFERED", {}).items()}
    for key, value in tree.items():
        if key not in fields:
            yield f"{prefix}{key}", [f"{prefix}{name}" for name in fields], reasons.get(key)
            continue
        below = submodels(fields[key].annotation)
        if below:
            yield from _unknown(value, below, f"{prefix}{key}.")


def _unknown_sentence(path: str, siblings: list[str], everything: list[str]) -> str:
    """Look among the siblings first, then for the same name elsewhere, then anywhere."""
    leaf = path.rpartition(".")[2]
    by_leaf = {sibling.rpartition(".")[2]: sibling for sibling in siblings}
    near = nearest(leaf.lower(), list(by_leaf))
    elsewhere = [other for other in everything if other.rpartition(".")[2] == leaf]
    if near is not None:
        guess = f"did you mean `{by_leaf[near]}`?"
    elif elsewhere:
        guess = "did you mean " + " or ".join(f"`{other}`" for other in elsewhere[:4]) + "?"
    else:
        anywhere = nearest(path, everything, cutoff=0.6)
        guess = f"did you mean `{anywhere}`?" if anywhere else "valid keys here: " + ", ".join(by_leaf)
    return f"unknown key `{path}`; {guess}"


def _field(model: type[BaseModel], parts: list[str]) -> FieldInfo | None:
    models = [model]
    field: FieldInfo | None = None
    for part in parts:
        # A union of models puts the member's class name into the location; that is no field, so it is stepped over.
        if any(part == candidate.__name__ for candidate in models):
            continue
        field = next((m.model_fields[part] for m in models if part in m.model_fields), None)
        if field is None:
            return None
        models = submodels(field.annotation)
    return field


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def _allowed(field: FieldInfo) -> str:
    """Type and range of a field in words: 'a number > 0 and <= 1, or null'."""
    kinds = _kinds(field.annotation)
    bounds = " and ".join(_bounds(field.metadata))
    if bounds and kinds:
        kinds[0] = f"{kinds[0]} {bounds}"
    return ", or ".join(dict.fromkeys(kinds))


def _kinds(annotation: Any) -> list[str]:
    if annotation in _NAMES:
        return [_NAMES[annotation]]
    origin = get_origin(annotation)
    if origin is Literal:
        return ["one of " + ", ".join(str(value) for value in get_args(annotation))]
    if origin in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    if origin is dict or annotation is dict or submodels(annotation):
        return ["a mapping of keys"]
    if origin in (list, tuple, set):
        return ["a list"]
    return []


def _bounds(metadata: list[Any]) -> list[str]:
    words = []
    for item in metadata:
        if isinstance(item, Gt):
            words.append(f"> {item.gt}")
        elif isinstance(item, Ge):
            words.append(f">= {item.ge}")
        elif isinstance(item, Lt):
            words.append(f"< {item.lt}")
        elif isinstance(item, Le):
            words.append(f"<= {item.le}")
        elif isinstance(item, MinLen):
            words.append(f"of at least {item.min_length} characters or entries")
        elif isinstance(item, MaxLen):
            words.append(f"of at most {item.max_length} characters or entries")
        elif getattr(item, "pattern", None):
            words.append(f"matching {item.pattern}")
    return words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if submodels(field.annotation) and field.default is PydanticUndefined:
        return ""
    default = field.get_default(call_default_factory=True, validated_data={})
    return describe_value(default) if not isinstance(default, str | dict | list) else str(default)
