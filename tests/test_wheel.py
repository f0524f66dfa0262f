"""Build the wheel, compare it with the tree, and run the demo from it in an environment that lacks the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("actors", "archer", "buffer", "envs", "learner")
# The demo with a smaller model and fewer of everything.
FEW = (
    "cycles=1 episodes_per_cycle=8 demonstrations.episodes=32 evaluation.episodes=8 checkpoint.every=1 "
    "model.build.vocab_size=400 model.build.hidden_size=32 model.build.layers=2 model.build.heads=1 "
    "learner.clone.steps=4 learner.clone.held_out=0 learner.actor.steps_per_cycle=2 "
    "learner.critic.steps_per_cycle=2 learner.critic.warmup_steps=0 rollout.engine.kv_cache_gib=0.1"
)


def run(*command: str | Path, cwd: Path, timeout_s: float = 300.0) -> str:
    """Return the standard output of a command; fail with all that it printed if it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env={**kept, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, (
        f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def tracked() -> list[str]:
    """Return every file of the checkout that Git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree, because setuptools also packs what an earlier build left in build/."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    # Without isolation, with the setuptools of the lock: this test needs no registry.
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_wheel_holds_every_file_of_the_rooms_and_the_presets(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in tracked() if name.split("/")[0] in ROOMS}
    expected |= {f"archer/presets/{name.removeprefix('configs/')}" for name in tracked() if name.startswith("configs/")}
    assert packed == expected


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment of the installed packages and the wheel, and return its interpreter.

    A .pth file adds this environment's site-packages to the path of the new one. Python reads no .pth file of a folder
    that was added so, and the editable install of the checkout is one of those.
    """
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    made = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", made, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=venv.parent)
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(made, "-c", query, cwd=venv.parent).strip())
    (site / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def test_the_checkout_is_out_of_sight_of_the_installed_wheel(python: Path, tmp_path: Path) -> None:
    program = f"""
import importlib.util, json, sys
places = {{room: importlib.util.find_spec(room).origin for room in {ROOMS!r}}}
seen = [name for name in ("tests", "bench") if importlib.util.find_spec(name)]
print(json.dumps([places, sys.path, seen]))
"""
    places, path, seen = json.loads(run(python, "-c", program, cwd=tmp_path))
    venv = python.parents[1]
    for room in ROOMS:
        assert Path(places[room]).is_relative_to(venv), places[room]
    assert str(ROOT) not in path
    assert not seen


@pytest.mark.end_to_end
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_from_the_installed_wheel(python: Path, tmp_path: Path) -> None:
    printed = run(python.with_name("archer"), "demo", *FEW.split(), cwd=tmp_path, timeout_s=800)
    summary = json.loads((tmp_path / "runs" / "demo" / "summary.json").read_text())
    assert summary["cycles"] == 1, printed
    assert summary["episodes"] == 8
    assert summary["final_return"] is not None
