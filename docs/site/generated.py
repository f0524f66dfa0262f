"""The pages of docs/ that programs write: `write` brings them up to date, and a test compares them with the code."""

from __future__ import annotations

from pathlib import Path

from command_page import command_page
from configuration_page import configuration_page

DOCS = Path(__file__).resolve().parents[1]
PAGES = {"commands.md": command_page, "configuration.md": configuration_page}
"""File below docs/ to the function that returns its text. deploy/metrics_page.py writes docs/metrics.md."""


def write() -> None:
    """Write each page whose text has changed."""
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
