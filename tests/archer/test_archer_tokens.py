"""Tokens of the commands that serve: in files of their owner, never printed, never on a command line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from archer.commands.token_file import open_token
from archer.errors import ConfigError


def test_a_token_is_made_once_in_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = open_token(path)
    assert len(token) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_token(path) == token != open_token(tmp_path / "another")


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        ("a-token-that-nobody-guesses", 0o644, "others may read"),
        ("a-token-that-nobody-guesses", 0o660, "others may read"),
        ("short", 0o600, "holds no token"),
        ("", 0o600, "holds no token"),
        ("two words of a long sentence", 0o600, "holds no token"),
        ("é" * 20, 0o600, "holds no token"),
    ],
)
def test_a_file_that_protects_nothing_is_refused(tmp_path: Path, content: str, mode: int, says: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=says) as caught:
        open_token(path)
    assert not content or content not in str(caught.value)


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/token cannot be read or made"):
        open_token(tmp_path / "nowhere" / "token")


def test_an_environment_is_not_served_to_other_machines_without_a_token() -> None:
    pytest.importorskip("openenv")
    from archer.commands.serve_env import serve_env

    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 accepts other machines, so it needs a token"):
        serve_env("key_door", host="0.0.0.0")
