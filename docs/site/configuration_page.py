"""Return docs/configuration.md, the reference of every setting, from the configuration models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from archer.config.fields import Field, fields
from archer.config.presets import presets

_HEAD = """# Configuration

`make docs` writes this page from the models that check a configuration. `archer config --fields` prints the same in a
terminal, and `archer config CONFIG [KEY=VALUE]...` prints a configuration in full, with every default. Each section
below is a mapping in the YAML file; its heading is the path to it.

A YAML file holds the values that differ from the defaults. `KEY=VALUE` arguments override the file, with the path of
the field as the key:

```bash
archer train paper/twenty_questions learner.critic.lr=1e-4 rollout.workers=2 name=mine
```

Before anything starts, ArCHer refuses unknown keys and values out of range, and names the nearest valid key. The
resolved configuration is written into the run folder.

## Presets

The files are in `configs/`. A preset is named by its file, or without folder and suffix: `archer train key_door`.

| preset | task and scale |
| --- | --- |
"""


def configuration_page() -> str:
    """Return the text of the page."""
    every = list(fields().values())
    parts = [_HEAD, *(f"| `{name}` | {_opening(name)} |\n" for name in sorted(presets()))]
    parts.append("\n## The run\n" + _table([field for field in every if "." not in field.path and not field.section]))
    for section in every:
        if section.section:
            inner = [field for field in every if field.path.rpartition(".")[0] == section.path]
            parts.append(f"\n## `{section.path}`\n\n{section.description}\n")
            parts.append(_table([field for field in inner if not field.section]))
            parts += _not_offered(section)
    return "".join(parts)


def _table(rows: Sequence[Field]) -> str:
    if not rows:
        return ""
    lines = ["\n| field | default | values | meaning |\n| --- | --- | --- | --- |\n"]
    for row in rows:
        default = f"`{row.default}`" if row.default and row.default != "required" else row.default
        allowed = re.sub(r"matching (\S+)", r"matching `\1`", row.allowed)  # a pattern is no Markdown
        name = f'<a id="{row.path}"></a>`{row.path.rpartition(".")[2]}`'
        lines.append(f"| {' | '.join(map(_cell, (name, default, allowed, row.description)))} |\n")
    return "".join(lines)


def _not_offered(section: Field) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for key, reason in section.not_offered.items():
        reasons.setdefault(reason, []).append(f"`{key}`")
    for reason, keys in reasons.items():
        yield f"\nNot offered: {', '.join(keys)}. The reason: {reason}.\n"


def _opening(preset: str) -> str:
    """Return the sentences at the beginning of a preset, up to the one that introduces a command."""
    text = ""
    for line in presets()[preset].read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        if line.startswith("#  "):
            text = text.rpartition(". ")[0] + "."
            break
        text += line.removeprefix("#")
    return _cell(text.strip())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
