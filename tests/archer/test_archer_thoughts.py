"""Runs of a thinking model in one process, with a template that reads the clock, and episodes that cannot be played."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_archer_inline import TINY, train
from thinking_cases import check_logprobs, played, save_thinking_model, thinking_tokenizer

import envs
from archer.driver.run_folder import read_rows
from envs.registry import _entries


class Echo:
    """Answers with what the action says, and from time to time with half of a surrogate pair."""

    spec: ClassVar[envs.EnvSpec] = envs.EnvSpec(id="echo", description="Echoes.", max_turns=3, reward_range=(0.0, 3.0))

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, envs.Info]:
        self._seed = seed
        return "Say something.", {}

    def step(self, action: str) -> envs.Step:
        heard = "\ud800" if self._seed % 5 == 2 else f"You said {action[:20]}."
        return heard, float(not action), False, False, {"success": False}

    def close(self) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    envs.register(Echo.spec, Echo)
    yield "echo"
    del _entries["echo"]


@pytest.mark.parametrize("thoughts", ["keep", "drop"])
def test_two_cycles_of_a_thinking_model(
    one_rank: None, tmp_path: Path, echo: str, thoughts: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = save_thinking_model(tmp_path / "model")
    tree = TINY | {"model": {"path": str(model)}, "env": {"id": echo}, "demonstrations": {}}
    sampling = {"max_tokens": 12, "thought_tokens": 30}
    tree |= {"rollout": {"thoughts": thoughts, "sampling": sampling, "episodes_at_once": 8}}
    folder = train(tmp_path / "runs", "episodes_per_cycle=16", "learner.clone.steps=0", tree=tree)
    episodes = played(folder, version=1)
    assert 8 <= len(episodes) < 16
    check_logprobs(folder / "checkpoints" / "cycle-00001" / "policy", episodes)
    tokenizer = thinking_tokenizer(None)
    end = tokenizer.convert_tokens_to_ids("</think>")
    ended = 0
    for episode in episodes:
        assert (len(episode.state_start) > 0) == (thoughts == "drop")
        starts = []
        for turn in range(episode.turns):
            action = episode.tokens[episode.action_start[turn] : episode.action_end[turn]].tolist()
            ended += end in action
            assert len(action) <= (action.index(end) + 1 + 12 if end in action else 30)
            starts.append(tokenizer.decode(episode.state(turn)).partition("\n")[0])
        assert len(set(starts)) == 1, "one clock for the episode"
    assert ended > 3
    rows = read_rows(folder / "metrics.jsonl")
    metrics = [row["metrics"] for row in rows if row["kind"] == "cycle"][-1]
    assert 0 < metrics["endless_thoughts"] < 3
    assert metrics["env_failures"] == 16 - len(episodes)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["dropped"]["episodes"] == sum(row["episodes"] for row in rows if row["kind"] == "dropped") >= 6
    assert "step of echo, turn 1: the observation is '\\ud800'" in summary["dropped"]["reason"]
    evaluation = [row for row in rows if row["kind"] == "evaluation"][-1]
    assert (evaluation["episodes"], evaluation["dropped"]) in ((3, 1), (4, 0))
    assert "could not be played" in capfd.readouterr().out
