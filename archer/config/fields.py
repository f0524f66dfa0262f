"""Describe every field of the configuration, from the JSON schema of its model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from archer.config.models import RunConfig
from archer.config.yaml_values import describe


@dataclass(frozen=True)
class Field:
    """A field of the configuration, or a section."""

    path: str  # keys from the top, joined by dots
    allowed: str  # type and range in words, such as "a number > 0, or null"
    default: str  # as YAML, "required", or "" for a section
    description: str
    section: bool
    not_offered: Mapping[str, str]  # keys that a section deliberately lacks, with the reason


@cache
def fields() -> dict[str, Field]:
    """Return every field of `RunConfig` by its path, each section before the fields below it."""
    schema = RunConfig.model_json_schema()
    return {found.path: found for found in _below(schema, schema["$defs"], "")}


def _below(section: dict[str, Any], models: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, schema in section["properties"].items():
        kinds = schema.get("anyOf") or schema.get("oneOf") or [schema]
        model: dict[str, Any] = next((models[kind["$ref"].rpartition("/")[2]] for kind in kinds if "$ref" in kind), {})
        yield Field(
            path=f"{prefix}{name}",
            allowed=", or ".join(map(_allowed, kinds)),
            default="required" if name in section.get("required", ()) else _default(schema.get("default", "")),
            description=schema.get("description") or model["description"],
            section=bool(model),
            not_offered=model.get("not_offered", {}),
        )
        if model:
            yield from _below(model, models, f"{prefix}{name}.")


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping of keys",
}
_BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
    "minLength": "of {} or more characters",
    "pattern": "matching {}",
}


def _allowed(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(map(str, schema.get("enum") or [schema["const"]]))
    if "enum" in schema.get("items", {}) or "const" in schema.get("items", {}):
        return f"a list; each is {_allowed(schema['items'])}"
    bounds = " and ".join(text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema)
    return f"{_TYPES[schema.get('type', 'object')]} {bounds}".rstrip()


def _default(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):  # a section's defaults are those of its fields
        return "" if value else "{}"
    return describe(value)
