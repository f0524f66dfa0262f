"""Parsers of text in Python, on bytes that follow their branches (atheris)."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.fuzz_core import Target


def targets() -> list[Target]:
    """Return the targets of this module; none where atheris is not installed."""
    return readers() if find_spec("atheris") else []


def readers() -> list[Target]:
    """Return the targets of this module. Their checks run without atheris too."""
    return [
        Target("bytes-tools", 2.0, reads=(_tools, ("envs",))),
        Target("bytes-questions", 1.0, reads=(_questions, ("envs",))),
        Target("bytes-yaml", 0.5, reads=(_yaml, ("archer.config", "yaml"))),
        Target("bytes-json", 0.5, reads=(_json, ("archer.imports",))),
        Target("bytes-headers", 0.5, reads=(_headers, ("envs.adapters",))),
    ]


class Check:
    """A check of bytes, with samples from which atheris starts."""

    def __init__(self, run: Callable[[bytes], None], *samples: str) -> None:
        self._run = run
        self.samples = [sample.encode() for sample in samples]

    def __call__(self, data: bytes) -> None:
        self._run(data)


def _tools() -> Check:
    """Calls of the office tools: answered or refused, and what is in memory stays within its bounds."""
    from envs.tool_use.desktop import Desktop
    from envs.tool_use.tasks import FAMILIES, draw_task
    from envs.tool_use.tools import DONE, TOOLS
    from envs.toolkit.tool_calls import ToolError

    desktop = Desktop()
    content, _ = draw_task(1, FAMILIES)
    calls = 0

    def run(data: bytes) -> None:
        nonlocal calls
        if calls % 50 == 0:
            desktop.fill(content)
        calls += 1
        text = (
            data.decode("utf-8", "surrogatepass" if calls % 2 else "replace")
            if _decodes(data)
            else data.decode("latin-1")
        )
        with suppress(ToolError):
            call = TOOLS.read(text)
            if call.tool != DONE:
                answer = desktop.do(call)
                assert 0 < len(answer) <= 3_000, f"an answer of {len(answer)} characters"
                answer.encode()
        for direct in ("sql", "calc", "read", "list"):
            with suppress(ToolError):
                argument = {"sql": "query", "calc": "expression", "read": "path", "list": "folder"}[direct]
                call = TOOLS.read(json.dumps({"tool": direct, "args": {argument: text[:400]}}))
                assert len(desktop.do(call)) <= 3_000

    return Check(
        run,
        '{"tool": "sql", "args": {"query": "SELECT name, count(*) FROM staff GROUP BY city"}}',
        '{"tool": "write", "args": {"path": "a/b.txt", "text": "x"}}',
        "SELECT * FROM sales WHERE id IN (SELECT id FROM sales) ORDER BY amount",
        "ATTACH DATABASE 'x' AS y",
        "PRAGMA writable_schema=1",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c",
        "9**9**9",
        "round(2.5, -3) + max(1, 2)",
        "../../etc/passwd",
    )


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _questions() -> Check:
    """Questions of the guessing games: any text has a reading."""
    import envs

    made = {name: envs.make(name) for name in ("guess_my_city", "twenty_questions", "wordle")}
    for env in made.values():
        env.reset(seed=1)
    names = sorted(made)

    def run(data: bytes) -> None:
        if not data:
            return
        env = made[names[data[0] % len(names)]]
        text = data[1:].decode("utf-8", "replace")
        observation, _, terminated, truncated, _ = env.step(text)
        assert observation
        if terminated or truncated:
            env.reset(seed=data[0])

    return Check(run, "0Is it in Europe?", "1Is it bigger than a breadbox?", "2crane", "0more than 3 million people?")


def _yaml() -> Check:
    """Values of overrides and whole configurations."""
    from archer.config.overrides import parse_override, set_key
    from archer.config.yaml_values import dump_yaml, parse_yaml
    from archer.errors import ConfigError

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        with suppress(ConfigError):
            key, value = parse_override(text)
            tree: dict[str, Any] = {"a": 1, "b": {"c": 2}}
            set_key(tree, key, value, text)
        with suppress(ConfigError):
            value = parse_yaml(text, fault="fuzz")
            if _plain(value):
                again = parse_yaml(dump_yaml(value), fault="dumped")
                assert repr(again) == repr(value), f"{value!r} came back as {again!r}"

    return Check(run, "learner.critic.lr=1e-4", "a: {b: [1, 2]}\nc: 0x1F\n", "a.b=null", "- 1:30\n- 2024-01-01\n")


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and value == value)


def _json() -> Check:
    """Files of items in JSON that may be damaged or compressed."""
    from archer.errors import ConfigError
    from archer.imports.json_items import read_items

    folder = tempfile.TemporaryDirectory(prefix="archer-fuzz-")

    def run(data: bytes) -> None:
        path = Path(folder.name) / "a.json"
        path.write_bytes(data)
        dropped: list[tuple[str, str]] = []
        with suppress(ConfigError):
            list(read_items(path, dropped))

    return Check(run, '[{"a": 1}, {"b": [2]}]', '{"a": 1}\n{"a": 2}\n', "[1, 2", "\x1f\x8b")


def _headers() -> Check:
    """Headers of strangers: no exception, and no admission without the token."""
    from envs.adapters.asgi_middleware import Guard

    async def app(*_: Any) -> None: ...

    closed, open_ = Guard(app, "the-token"), Guard(app, None)

    def run(data: bytes) -> None:
        host, _, rest = data.partition(b"\n")
        given = {b"host": host, b"origin": rest, b"authorization": data}
        if closed._admits(given):
            assert data == b"Bearer the-token" or data[:5].lower() == b"basic" or b"the-token" in data
        open_._admits(given)

    basic = base64.b64encode(b"u:the-token").decode()
    return Check(
        run, "127.0.0.1:80\nhttp://127.0.0.1:80", "Bearer the-token", f"Basic {basic}", "[::1]:9\n", "localhost\n"
    )
