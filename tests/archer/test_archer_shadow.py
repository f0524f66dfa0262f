"""A folder of the user that hides a room is found before a process starts."""

import subprocess
import sys
from pathlib import Path

import pytest

import archer
from archer.errors import ShadowError
from archer.shadowed_packages import ROOMS, check_shadowing

HOME = Path(archer.__file__).resolve().parent.parent


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_clean_directory_and_the_checkout_itself_pass(tmp_path: Path) -> None:
    check_shadowing(tmp_path)
    check_shadowing(HOME)


@pytest.mark.parametrize("room", ROOMS)
def test_package_of_the_same_name_is_refused_with_both_paths(tmp_path: Path, room: str) -> None:
    (tmp_path / room).mkdir()
    (tmp_path / room / "__init__.py").write_text("")
    with pytest.raises(ShadowError) as caught:
        check_shadowing(tmp_path)
    assert str(tmp_path / room) in str(caught.value)
    assert str(HOME / room) in str(caught.value)


def test_module_of_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "envs.py").write_text("")
    with pytest.raises(ShadowError, match=r"envs\.py"):
        check_shadowing(tmp_path)


def test_other_folders_pass_until_one_has_the_name_of_a_room(tmp_path: Path) -> None:
    for name in ("environments", "data", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    check_shadowing(tmp_path)
    (tmp_path / "environments").rename(tmp_path / "envs")
    with pytest.raises(ShadowError, match="envs"):
        check_shadowing(tmp_path)


def test_check_agrees_with_what_a_worker_would_import(tmp_path: Path) -> None:
    """Whether a folder without __init__.py hides a room depends on the kind of install, so the test asks Python."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "mine.py").write_text("")
    imported = run("import envs; print(getattr(envs, '__file__', None))", tmp_path)
    is_ours = imported.stdout.strip() == str(HOME / "envs" / "__init__.py")
    script = "from archer.shadowed_packages import check_shadowing; check_shadowing()"
    checked = run(f"import sys; sys.path.remove(''); {script}", tmp_path)
    assert (checked.returncode == 0) == is_ours, checked.stderr
    assert is_ours or "ShadowError" in checked.stderr


def test_command_names_both_paths_and_exits(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    script = "import sys; sys.argv = ['archer', 'envs']; sys.path.remove(''); from archer.cli import main; main()"
    answer = run(script, tmp_path)
    assert answer.returncode == 2
    assert str(tmp_path / "envs") in answer.stderr
    assert str(HOME / "envs") in answer.stderr
    assert "Traceback" not in answer.stderr
