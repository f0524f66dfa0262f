"""Configurations, and files to import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from archer.config.loading import config_from_tree, dump_config
from archer.config.models import RunConfig
from archer.config.yaml_values import parse_yaml, read_yaml
from archer.errors import ConfigError
from archer.imports.conversations import read_imports
from archer.imports.lmrl import read_lmrl
from bench.fuzz_core import Probe, Target, must
from bench.fuzz_rendering import WORDS

PRESET = Path(__file__).resolve().parent.parent / "configs" / "key_door.yaml"
_SCALARS = [
    "",
    "null",
    "~",
    "true",
    "yes",
    "0",
    "-1",
    "1",
    "1e-4",
    "1e999",
    ".nan",
    ".inf",
    "-.inf",
    "0x1F",
    "0123",
    "1:30",
    "2024-13-45",
    "2024-01-01",
    "9" * 30,
    "'9'",
    "[]",
    "{}",
    "[1, [2]]",
    "{a: 1}",
    "&a [*a]",
    "*a",
    "!!python/name:os.system",
    "!!python/object/apply:os.system [id]",
    "!!binary aGk=",
    "<<: {a: 1}",
    "? a",
    "- - -",
    "%YAML 9",
    "\t",
    "a: b: c",
    "auto",
    "~/x",
    "$HOME",
    "../..",
    "x" * 3000,
    "[" * 2000,
    "\x00",
    "'",
    '"',
    "é",
    "\U0001f600",
    "module:Class",
    "os:system",
]


def targets() -> list[Target]:
    """Return the targets of this module."""
    return [
        Target("config-trees", 0.5, _config_trees),
        Target("config-texts", 0.5, _config_texts),
        Target("import-lmrl", 0.8, _lmrl),
        Target("import-messages", 0.3, _messages),
    ]


def _paths(model: Any, prefix: str = "") -> Iterator[str]:
    for name, value in model:
        yield prefix + name
        if hasattr(value, "model_fields_set"):
            yield from _paths(value, f"{prefix}{name}.")


def _at(model: Any, key: str) -> Any:
    """Return the value of a dotted key of a configuration, or None."""
    for name in key.split("."):
        model = getattr(model, name, None)
    return model


def _checked(tree: dict[str, Any], overrides: list[str]) -> None:
    """Read a configuration: refused with sentences, or the same again when it is written and read."""
    try:
        config = config_from_tree(tree, overrides, source="fuzz.yaml", check=False)
    except ConfigError as error:
        must(bool(str(error).strip()), "an empty sentence")
        must("Traceback" not in str(error), str(error))
        return
    again = config_from_tree(parse_yaml(dump_config(config), fault="dumped"), source="dumped", check=False)
    assert again == config, "another configuration was read back"


@contextmanager
def _config_trees(folder: Path) -> Iterator[Probe]:
    del folder
    text = PRESET.read_text(encoding="utf-8")
    base = {**parse_yaml(text, fault="preset"), "name": "fuzz"}
    config = RunConfig.model_validate(base)
    keys = sorted({*_paths(config), "nothing", "learner.nothing", "env.kwargs.size"})
    value = st.sampled_from(_SCALARS) | st.integers().map(str) | st.floats().map(str) | st.text(max_size=12)
    numbers = [key for key in keys if isinstance(_at(config, key), int | float)]
    near = st.tuples(st.sampled_from(numbers), st.sampled_from(["1", "2", "3", "4", "0.5", "true", "1e-3"])).map(
        "=".join
    )
    override = near | near | st.tuples(st.sampled_from(keys), value).map("=".join) | st.text(max_size=20)

    def check(overrides: list[str]) -> None:
        _checked(parse_yaml(text, fault="preset") | {"name": "fuzz"}, overrides)

    yield Probe(st.lists(override, max_size=3), check)


@contextmanager
def _config_texts(folder: Path) -> Iterator[Probe]:
    path = folder / "a.yaml"
    lines = PRESET.read_text(encoding="utf-8").splitlines()
    line = (
        st.sampled_from(lines)
        | st.sampled_from(_SCALARS)
        | st.text(max_size=20)
        | st.sampled_from(lines).map(lambda t: "  " + t)
    )
    cut = st.tuples(st.integers(0, len(lines)), st.lists(line, max_size=3), st.integers(0, 4))

    def check(change: tuple[int, list[str], int]) -> None:
        at, new, left_out = change
        path.write_text(
            "\n".join([*lines[:at], *new, *lines[at + left_out :]]), encoding="utf-8", errors="surrogatepass"
        )
        try:
            tree = read_yaml(path)
        except ConfigError as error:
            must("a.yaml" in str(error), str(error))
            return
        _checked(tree | {"name": "fuzz"}, [])

    yield Probe(cut, check)


_ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@contextmanager
def _lmrl(folder: Path) -> Iterator[Probe]:
    """Files of LMRL-Gym: each conversation becomes an episode or is dropped with a reason."""
    path = folder / "a.json"
    turn = st.sampled_from(
        ["Is it alive? No.", "Is it a football? Yes.", "?", "", " ? ", "Is it? Football", "a?b?c"]
    ) | st.text(max_size=15)
    item = st.fixed_dictionaries(
        {},
        optional={
            "conversation": st.lists(turn, max_size=4) | _ANY,
            "lines": st.lists(turn, max_size=3) | _ANY,
            "done": st.booleans() | _ANY,
            "word": st.sampled_from(["football", "Football", ["Football", "ball"], "", ","]) | _ANY,
        },
    )
    sound = st.fixed_dictionaries(
        {
            "conversation": st.lists(
                st.sampled_from(["Is it alive? No.", "Is it round? Yes."]) | turn, min_size=1, max_size=3
            ),
            "done": st.sampled_from([False, False, True]),
            "word": st.sampled_from(["Football", ["Football", "ball"], "football,x"]),
        }
    )
    document = st.lists(sound | item | _ANY, max_size=3).map(json.dumps)
    damaged = st.tuples(document, st.integers(0, 80), st.text(max_size=3)).map(
        lambda d: d[0][: d[1]] + d[2] + d[0][d[1] :]
    )

    def check(text: str) -> None:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        dropped: list[tuple[str, str]] = []
        try:
            episodes = list(read_lmrl(path, "twenty_questions_subset", {}, dropped))
        except ConfigError as error:
            must("a.json" in str(error), str(error))
            return
        for episode in episodes:
            assert len(episode.observations) == len(episode.actions) + 1 == len(episode.rewards) + 1
        assert all(reason and where for reason, where in dropped)

    yield Probe(document | damaged, check)


@contextmanager
def _messages(folder: Path) -> Iterator[Probe]:
    """Episodes in the replay schema, whose messages need not be a conversation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bench.fuzz_replay import sound_episode
    from buffer.episodes.schema import episodes_to_batch

    path = folder / "a.parquet"
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", ""]), "content": st.sampled_from(WORDS)}
    )

    def check(messages: list[dict[str, str]]) -> None:
        episode = sound_episode(1)
        episode.__dict__["messages"] = messages
        pq.write_table(pa.Table.from_batches([episodes_to_batch([episode])]), path)
        try:
            (found,) = read_imports([str(path)], env="fuzz")
        except ConfigError as error:
            must("e1" in str(error), str(error))
            return
        assert len(found.actions) == 2

    yield Probe(st.lists(message, max_size=7), check)
