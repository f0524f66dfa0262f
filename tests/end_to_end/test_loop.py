"""The whole loop on the real stack: Ray, vLLM, replay shards, DeepSpeed ranks, broadcast and its proof.

Every algorithm runs on the real stack, selected by the field `algorithm`, in a run that also tests something else, so
that no stack starts for an algorithm alone. ArCHer with adapters, cloning, offline ArCHer and CHAI run here. PPO runs
in test_window.py, GRPO in test_job.py, filtered cloning in test_tools.py, REINFORCE and ArCHer in test_thoughts.py.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from loop_cases import ALGORITHMS, Run, archer, assert_cycles, assert_trained, record_episodes, write_config

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]


# V from fresh actions, Retrace on demonstrations and new episodes, and the actor that regresses onto its improvement.
RECIPE: dict[str, Any] = {
    "clone": {"observation_weight": 1.0},
    "critic": {
        "build": None,
        "value": "fresh",
        "retrace": 0.9,
        "n_step": 1,
        "unit": "episode",
        "batch": 4,
        "recent_share": 0.5,
    },
    "actor": {
        "objective": "improvement",
        "unit": "episode",
        "batch": 4,
        "fresh_per_state": 3,
        "recent_share": 0.5,
        "kl_to_clone": 0.01,
    },
}


def test_killed_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    """Kill the driver in async mode; the resumed run names its checkpoint and repeats no cycle that it has.

    The run begins with a cycle on imported episodes. Policy, critic, target and reference are adapters on the clone,
    and each of two ranks holds half of them.
    """
    config = write_config(
        tmp_path,
        cycles=5,
        mode="async",
        offline_cycles=1,
        demonstrations={"episodes": 0, "files": [str(record_episodes(tmp_path))]},
        learner=ALGORITHMS | RECIPE | {"ranks": 2, "zero_stage": 3, "lora": {"rank": 4}},
    )
    with archer(tmp_path, "train", str(config)) as run:
        run.until(lambda line: line.startswith("cycle 3/5"))
        family = run.family()
        run.process.send_signal(signal.SIGKILL)
        run.process.wait(30)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [p for p in alive if p.is_running()], "processes outlived the killed driver"

    with archer(tmp_path, "train", "--resume", str(run.folder)) as resumed:
        assert resumed.finish() == 0, resumed.output
    said = re.search(r"resuming from .*cycle-0000(\d) \(cycle (\d)\)", resumed.output)
    assert said is not None
    assert said.group(1) == said.group(2)
    assert int(said.group(1)) >= 2
    assert [row["cycle"] for row in resumed.rows("cycle")] == [1, 2, 3, 4, 5]
    # The clone is version 1; each cycle adds one.
    assert_trained(run.folder, "actor/moved", cycles=5, version=6, offline=1)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["episodes"] >= 32
    assert (run.folder / "checkpoints" / "cycle-00005" / "adapter" / "adapter_model.safetensors").is_file()


def test_run_survives_deaths_and_ends_in_order_at_sigterm(tmp_path: Path) -> None:
    """Kill a worker, a shard, an engine and a rank in turn, then interrupt the run.

    The run goes on, replay has every episode once, and the restart of the ranks is said. Offline ArCHer trains it; the
    first cycle is on the demonstrations.
    """
    config = write_config(
        tmp_path,
        cycles=50,
        episodes_per_cycle=16,
        algorithm="archer_offline",
        offline_cycles=1,
        learner=ALGORITHMS,
    )
    victims = ("ray::RolloutWorker", "ray::ShardActor", "VLLM::EngineCore", "ray::LearnerRank")
    with archer(tmp_path, "train", str(config)) as run:
        for cycle, title in enumerate(victims, start=2):
            run.until(lambda line, cycle=cycle: line.startswith(f"cycle {cycle}/50"))
            found = run.descendants(title)
            assert found, f"no process called {title}"
            found[0].kill()
        said = run.until(lambda line: line.startswith("learner rank"))
        assert re.fullmatch(r"learner rank 0 died; restart 1 of at most 3 from cycle [45]", said)
        run.until(lambda line: line.startswith("cycle 6/50"))
        _interrupt(run, signal.SIGTERM, 143)
    cycles = run.rows("cycle")
    assert [row["cycle"] for row in cycles] == list(range(1, len(cycles) + 1))
    [restart] = run.rows("restart")
    assert (restart["restarts"], restart["reason"]) == (1, "learner rank 0 died")
    ids = _episode_ids(run.folder / "replay")
    assert len(ids) == len(set(ids)) >= 32 + cycles[-1]["metrics"]["episodes"] >= 32 + 5 * 16
    # The clone is version 1; each cycle adds one, and so does the restart.
    versions = [row["metrics"]["policy_version"] for row in cycles]
    assert versions[:4] == [2, 3, 4, 5]
    assert versions == sorted(set(versions))
    assert_cycles(run.folder, "actor/advantage", version=versions[5], offline=1, cycles=6)


def _interrupt(run: Run, number: signal.Signals, status: int) -> None:
    """Send a signal to the driver: it ends with one sentence, and no process of its own is left."""
    family = run.family()
    run.process.send_signal(number)
    assert run.finish(120) == status, run.output
    assert "--resume" in run.lines[-1]
    assert "Traceback" not in run.output
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [p for p in alive if p.is_running()], "processes outlived the interrupted driver"


def _episode_ids(replay: Path) -> list[str]:
    """Return the ids of all episodes in the logs of the shards."""
    from buffer.log.write_ahead import read_episodes

    return [episode_id for batch in read_episodes(replay) for episode_id in _column(batch)]


def _column(batch: pa.RecordBatch) -> list[str]:
    return [str(value) for value in batch.column("episode_id").to_pylist()]


def test_interrupt_ends_the_run_with_one_message(tmp_path: Path) -> None:
    """Ctrl-C after two cycles of cloning, which trains in no other of these tests."""
    config = write_config(tmp_path, cycles=50, algorithm="bc", learner=ALGORITHMS, replay={"shards": 1})
    with archer(tmp_path, "train", str(config)) as run:
        run.until(lambda line: line.startswith("cycle 2/50"))
        _interrupt(run, signal.SIGINT, 130)
    assert_cycles(run.folder, "return", version=1, cycles=2)


BREAKS = """
from pathlib import Path

from envs.twenty_questions import TwentyQuestionsSubset


class Breaks(TwentyQuestionsSubset):
    def step(self, action):
        if Path({marker!r}).exists():
            raise RuntimeError("the dice are lost")
        return super().step(action)
"""


def test_environment_that_raises_ends_the_run_with_its_own_error(cluster_address: str, tmp_path: Path) -> None:
    """CHAI trains for two cycles, which broadcast nothing: the rollouts continue with the same version. Then a step of
    the environment raises."""
    marker = tmp_path / "broken"
    (tmp_path / "breaking_task.py").write_text(BREAKS.format(marker=str(marker)))
    config = write_config(
        tmp_path,
        algorithm="chai",
        mode="async",
        max_staleness=0,
        cycles=50,
        env={"id": "breaking_task:Breaks"},
        learner=ALGORITHMS,
        demonstrations={"episodes": 0, "files": [str(record_episodes(tmp_path))]},
        replay={"shards": 1},
    )
    environment = {"PYTHONPATH": str(tmp_path), "RAY_ADDRESS": cluster_address}
    with archer(tmp_path, "train", str(config), **environment) as run:
        run.until(lambda line: line.startswith("cycle 2/50"))
        marker.touch()
        assert run.finish() == 1
    assert "the dice are lost" in run.lines[-1]
    assert "Traceback" not in run.output
    assert_cycles(run.folder, "critic/q_loss", version=1, cycles=2)
