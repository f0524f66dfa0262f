"""Parse YAML into plain values; every fault becomes a ConfigError with its line."""

import re
from pathlib import Path
from typing import Any

import yaml

from archer.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with these changes: `1e-4` is a number; a duplicate key is an error; and so is a value that YAML reads
    differently from what a person means (`0123` as 83, `1:30` as 90, `no` as false, a date)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                problem = f"key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as numbers."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )

_PLAIN = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)"),
    "float": re.compile(r"[^:_]*"),
    "bool": re.compile(r"(?i:true|false)"),
    "timestamp": re.compile(r"(?!)"),
}
"""What is left of each type of YAML 1.1: the other spellings are mistakes more often than not."""


def _construct_plain(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Return the value of a number or truth value. Raises ConstructorError for a spelling outside `_PLAIN`."""
    kind = node.tag.rpartition(":")[2]
    if kind == "timestamp":
        meaning = "a date"
    else:
        value = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")(loader, node)
        if _PLAIN[kind].fullmatch(node.value):
            return value
        meaning = f"{describe(value)}; write {describe(value)} if you mean that"
    problem = f"YAML reads {node.value} as {meaning}; quotes make it text: '{node.value}'"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


for _kind_of_value in _PLAIN:
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind_of_value}", _construct_plain)


def parse_yaml(text: str, *, fault: str) -> Any:
    """Return the value of a YAML document. Raises ConfigError, whose message begins with `fault`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigError(f"{fault}: {where}{problem}") from None
    except (ValueError, RecursionError) as error:  # a date such as 2024-13-45; a thousand brackets
        raise ConfigError(f"{fault}: {error}") from None


def dump_yaml(tree: Any) -> str:
    """Return plain values as YAML that `parse_yaml` reads back to the same values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; an empty file holds an empty one. Raises ConfigError."""
    tree = parse_yaml(read_text(file), fault=f"{file} is not valid YAML")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} must contain keys and values at its top level, but contains {describe(tree)}")
    return tree


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file. Raises ConfigError."""
    try:
        return decoded(file.expanduser().read_bytes(), file)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None


def decoded(raw: bytes, file: Path) -> str:
    """Return the text of the bytes of `file`. Raises ConfigError if they are not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        utf16 = " It looks like UTF-16." if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise ConfigError(
            f"{file} is not UTF-8 text: byte {error.start} (line {line}) is {raw[error.start]:#04x}.{utf16} "
            "Convert it to UTF-8"
        ) from None


def describe(value: Any) -> str:
    """Return a value as it is named in an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)
