"""Runs in one process: every algorithm, equal runs from one seed, resumed runs, and what is refused."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from archer.config.loading import config_from_tree, dump_config
from archer.driver.inline import run_inline
from archer.driver.run_folder import RunFolder, read_rows
from archer.errors import ConfigError
from archer.results.policies import choose_policies
from learner.errors import NonFiniteLossError

TINY: dict[str, Any] = {
    "name": "tiny",
    "mode": "inline",
    "cycles": 2,
    "episodes_per_cycle": 8,
    "model": {
        "build": {
            "vocab_size": 400,
            "hidden_size": 32,
            "layers": 1,
            "heads": 1,
            "intermediate_size": 64,
            "max_positions": 400,
        }
    },
    "env": {"id": "key_door", "kwargs": {"maps": 1, "max_turns": 8}},
    "demonstrations": {"episodes": 32, "skill": 0.3, "keep_in_replay": True},
    "rollout": {"sampling": {"max_tokens": 6}, "episodes_at_once": 8},
    "learner": {
        "micro_batch": 4,
        "clone": {"steps": 6, "batch": 8, "lr": 3e-3},
        "critic": {
            "unit": "episode",
            "batch": 4,
            "steps_per_cycle": 3,
            "warmup_cycles": 0,
            "n_step": 2,
            "sampler": "prioritised",
            "lr": 1e-3,
        },
        "actor": {"unit": "episode", "batch": 4, "steps_per_cycle": 2, "lr": 1e-3, "fresh_per_state": 3, "epochs": 2},
        "offline": {"unit": "episode", "batch": 4, "steps_per_cycle": 3},
        "filtered_bc": {"batch": 4, "steps_per_cycle": 3},
        "ppo": {"batch": 4, "epochs": 2},
        "reinforce": {"batch": 4},
        "grpo": {"batch": 4, "group": 4},
    },
    "evaluation": {"episodes": 4},
}


def train(root: Path, *overrides: str, tree: dict[str, Any] = TINY) -> Path:
    """Run the small configuration in this process and return the run's folder."""
    config = config_from_tree(json.loads(json.dumps(tree)), overrides, source="the test")
    with RunFolder.create(root, config.name) as folder:
        folder.write(folder.config_path, dump_config(config))
        run_inline(config, folder, resume=False)
        return folder.path


def resume(path: Path, *overrides: str) -> None:
    with RunFolder.open(path) as folder:
        tree = yaml.safe_load(folder.config_path.read_text())
        run_inline(config_from_tree(tree, overrides, source="the test"), folder, resume=True)


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return all rows without what depends on the clock."""
    rows = []
    for row in read_rows(folder / "metrics.jsonl"):
        timeless = {key: value for key, value in row.items() if key not in ("time", "metrics")}
        clocks = ("seconds", "tokens_per_second")
        metrics = {k: v for k, v in row.get("metrics", {}).items() if not any(clock in k for clock in clocks)}
        rows.append({**timeless, "metrics": metrics})
    return rows


def test_one_seed_gives_one_run_from_the_command_line_or_in_this_process(one_rank: None, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded', [name for name in ('ray', 'vllm') if name in sys.modules]))\n"
        "from archer.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "train", str(path), "evaluation.every=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
    assert done.stderr == ""
    for words in ("stage: clone", "evaluation of clone", "cycle 2/2  return", "evaluation of final", "learning curve"):
        assert words in done.stdout
    first = tmp_path / "runs" / "tiny"
    second = train(tmp_path / "again", "evaluation.every=1")
    assert figures(first) == figures(second)
    assert [row["name"] for row in figures(first) if row["kind"] == "evaluation"] == ["clone", "cycle-1", "final"]
    other = train(tmp_path / "other", "evaluation.every=1", "seed=1")
    assert figures(other) != figures(first)
    summary = json.loads((first / "summary.json").read_text())
    assert summary["episodes"] == 16
    assert summary["policy_version"] == 3
    assert summary["proof_max_gap"] < 1e-4
    log = EventAccumulator(str(first / "tensorboard" / "cycle")).Reload()
    returns = [row["metrics"]["return"] for row in figures(first) if row["kind"] == "cycle"]
    assert [point.value for point in log.Scalars("return")] == pytest.approx(returns)
    assert "episodes/final/2/text_summary" in log.Tags()["tensors"], "a sample of the episodes of an evaluation"
    # `archer eval` and `archer compare` find the policy of such a run.
    (policy,) = choose_policies([str(first)], env=None, overrides=[])
    assert Path(policy.model).is_relative_to(first)


@pytest.mark.parametrize(
    ("overrides", "metric", "version"),
    [
        # The clone is version 1; each cycle that trains the policy adds one.
        (["algorithm=archer_offline", "offline_cycles=2"], "actor/advantage", 3),
        (["algorithm=bc"], "return", 1),
        (["algorithm=chai"], "critic/q_loss", 1),
        (["algorithm=filtered_bc"], "actor/token_nll", 3),
        (["algorithm=grpo"], "actor/loss", 3),
        (["algorithm=ppo"], "actor/value_loss", 3),
        (["algorithm=reinforce"], "actor/loss", 3),
        (["learner.lora={rank: 4}", "learner.actor.kl_to_clone=0.01"], "actor/advantage", 3),
    ],
)
def test_algorithms_run(one_rank: None, tmp_path: Path, overrides: list[str], metric: str, version: int) -> None:
    folder = train(tmp_path, *overrides)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["policy_version"] == version
    assert summary["proof_max_gap"] < 1e-4
    cycles = [row for row in figures(folder) if row["kind"] == "cycle"]
    assert len(cycles) == 2
    assert all(metric in row["metrics"] for row in cycles)
    assert (folder / "checkpoints" / "cycle-00002" / "adapter").is_dir() == ("lora" in overrides[0])


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(one_rank: None, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "cycles=3")
    parts = train(tmp_path / "parts", "cycles=2")
    resume(parts, "cycles=3")
    # The first part ended with an evaluation of its last policy.
    wanted = [row for row in figures(whole) if row["kind"] == "cycle" and row["cycle"] > 2]
    found = [row for row in figures(parts) if row["kind"] == "cycle" and row["cycle"] > 2]
    assert wanted == found
    assert len(wanted) == 1
    assert yaml.safe_load((parts / "config.yaml").read_text())["cycles"] == 3


def test_a_resumed_run_refuses_by_name_what_its_checkpoint_fixes(one_rank: None, tmp_path: Path) -> None:
    folder = train(tmp_path, "cycles=1")
    before = (folder / "config.yaml").read_text()
    rows = (folder / "metrics.jsonl").read_text()
    changes = {
        "learner.critic.heads=3": "`learner.critic.heads` is 3, and .*cycle-00001 fixes it at 2",
        "learner.critic.head_hidden_size=16": "`learner.critic.head_hidden_size` is 16",
        "learner.lora={rank: 4}": "`learner.lora` is {rank: 4.*fixes it at null",
        "algorithm=ppo": "`algorithm` is 'ppo'",
        "env={id: wordle}": "`env.id` is 'wordle'",
        "model.build.layers=2": "`model.build` is {.*layers: 2",
        "learner.actor.token_baseline=true": "`learner.actor.token_baseline` is true",
    }
    for override, said in changes.items():
        with pytest.raises(ConfigError, match=said):
            resume(folder, "cycles=2", override)
    with pytest.raises(ConfigError, match=r"critic.heads.*\n.*critic.bins"):
        resume(folder, "cycles=2", "learner.critic.heads=3", "learner.critic.bins=7")
    (folder / "checkpoints" / "cycle-00001" / "fixed.json").unlink()  # a checkpoint of an earlier version
    with pytest.raises(ConfigError, match=r"critic\.heads"):
        resume(folder, "cycles=2", "learner.critic.heads=3")
    assert (folder / "config.yaml").read_text() == before
    assert (folder / "metrics.jsonl").read_text() == rows


def test_a_failed_run_leaves_its_traceback_and_can_be_repeated(one_rank: None, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="clone phase"):
        train(tmp_path, "learner.clone.lr=1e30")
    assert "NonFiniteLossError" in (tmp_path / "tiny" / "error.log").read_text()
    assert read_rows(train(tmp_path, "cycles=0") / "metrics.jsonl")[-1]["name"] == "final"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_with_one_sentence(tmp_path: Path, number: signal.Signals, status: int) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    command = [sys.executable, "-m", "archer.cli", "train", str(path), "evaluation.episodes=100000"]
    options: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "start_new_session": True,
        # A shell's background job ignores SIGINT, and so do the processes that it starts.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen(command, text=True, cwd=tmp_path, **options) as process:
        assert process.stdout is not None
        try:
            assert any(line == "stage: evaluate\n" for line in process.stdout)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status
    assert errors.startswith("archer: interrupted; ")
    assert errors.count("\n") == 1


def test_a_run_needs_no_home_and_few_files(tmp_path: Path) -> None:
    """A container may have no home folder, a job few file handles and the lowest priority."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "cycles": 1, "runs_dir": str(tmp_path)}))

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        os.nice(5)

    nowhere = "/proc/none"  # even root cannot make it
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "MPL"))}
    run = subprocess.run(
        [sys.executable, "-m", "archer.cli", "train", str(path)],
        env=environment | {"HOME": nowhere, "OMP_NUM_THREADS": "1"},
        preexec_fn=little,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert (tmp_path / "tiny" / "summary.json").is_file()


@pytest.mark.parametrize(
    "override",
    [
        "learner.ranks=2",
        "learner.use_gpu=true",
        "learner.zero_stage=2",
        "learner.dtype=bfloat16",
        "rollout.engine.dtype=bfloat16",
        "replay.replication=2",
    ],
)
def test_what_one_process_cannot_do_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=f"`mode` is inline.*`{override.partition('=')[0]}`.*set mode=sync"):
        config_from_tree(json.loads(json.dumps(TINY)), [override], source="the test")
