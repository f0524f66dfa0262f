"""docs/correctness.md names tests; each of them must be there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "correctness.md"


def test_every_test_that_the_page_names_exists() -> None:
    folder, named = TESTS, 0
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = re.search(r"\(`tests/(.*?)/?`\)", line)
            assert section is not None, f"the section {line!r} names no folder"
            folder = TESTS / section.group(1)
        for file, test in re.findall(r"`([\w/]+\.py)::(\w+)`", line):
            assert f"def {test}(" in (folder / file).read_text(), f"{file} has no {test}"
            named += 1
    assert named > 40
