"""The story file of Detective, and the game with all commands permitted; importable in a child process."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from envs.detective import Detective

CHECKOUT_ROOT = Path(__file__).resolve().parents[2]
STORY = CHECKOUT_ROOT.parent / "shared" / "data" / "detective.z5"

plays = pytest.mark.skipif(
    not STORY.is_file() or find_spec("jericho") is None,
    reason="needs ../shared/data/detective.z5 beside the checkout and the package jericho (make install)",
)


class LeftOpen(Detective):
    """Detective without the filter for commands."""

    def read(self, action):
        return action
