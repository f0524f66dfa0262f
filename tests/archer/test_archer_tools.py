"""Runs with native tool calls, in one process: a user's environment learns them, and the form is announced."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from actor_cases import load_model, reference_logprobs
from test_archer_inline import TINY, train
from tool_templates import HERMES, LLAMA, MISTRAL, save_tool_model
from transformers import AutoTokenizer

import envs
from actors.config import RolloutConfig
from archer.config.loading import config_from_tree
from archer.driver.demonstrations import render
from archer.driver.run_folder import read_rows
from archer.driver.tool_calls import calls_of
from archer.errors import ConfigError
from archer.imports.conversations import read_imports
from buffer.archive import read_archive
from buffer.episodes.schema import Episode, batch_to_episodes
from envs.registry import _entries
from envs.toolkit.tool_calls import Parameter, Tool, Toolbox, ToolError, split_call, write_call
from learner.feeding.demonstrations import write_demonstrations

COLOURS = ("red", "blue")
LAMP = Toolbox(
    (
        Tool("light", "Light the lamp.", {"colour": Parameter("Its colour.", choices=COLOURS)}),
        Tool("done", "Say that it is done.", {}),
    )
)


class Lamp:
    """A user's environment: light the lamp in the colour that is asked for, then say so."""

    spec: ClassVar[envs.EnvSpec] = envs.EnvSpec(
        id="lamp", description="Light a lamp.", max_turns=4, reward_range=(0.0, 1.0), tools=LAMP.schemas
    )

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, envs.Info]:
        self._asked = COLOURS[random.Random(seed).randrange(2)]
        self._lit = ""
        return f"Please make it {self._asked}.", {"task_id": self._asked, "privileged": {"asked": self._asked}}

    def step(self, action: str) -> envs.Step:
        try:
            call = LAMP.read(action)
        except ToolError as error:
            return f"Error: {error}.", 0.0, False, False, {"invalid_action": True, "success": False}
        if call.tool == "light":
            self._lit = call.args["colour"]
            return f"It is {self._lit}.", 0.0, False, False, {"success": False}
        solved = self._lit == self._asked
        return "Good." if solved else "No.", float(solved), True, False, {"success": solved}

    def close(self) -> None:
        pass


class LampLighter:
    """The scripted player of `Lamp`."""

    def __init__(self, *, skill: float) -> None:
        pass

    def begin(self, observation: Any, info: Mapping[str, Any], *, seed: int) -> None:
        self._left = [write_call("light", colour=info["privileged"]["asked"]), write_call("done")]

    def act(self) -> str:
        return self._left.pop(0)

    def see(self, action: str, observation: Any, info: Mapping[str, Any]) -> None:
        pass


@pytest.fixture
def lamp() -> Iterator[str]:
    envs.register(Lamp.spec, Lamp, demonstrator=LampLighter)
    yield "lamp"
    del _entries["lamp"]


def learn(root: Path, model: Path, env: Mapping[str, Any], *overrides: str) -> Path:
    """Clone and train a model in this process for two cycles of eight episodes; return the run's folder."""
    return train(root, *overrides, tree=TINY | {"model": {"path": str(model)}, "env": env})


def played(folder: Path, version: int) -> list[Episode]:
    """Return the episodes that the policy of `version` played."""
    found = [
        episode
        for batch in read_archive(folder / "checkpoints" / "cycle-00002")
        for episode in batch_to_episodes(batch)
    ]
    return [episode for episode in found if set(episode.versions.tolist()) == {version}]


def check_logprobs(folder: Path, rollout_temperature: float = 1.0) -> int:
    """Compare the log-probabilities of the second cycle's episodes with the policy's own forward pass."""
    policy = load_model(folder / "checkpoints" / "cycle-00001" / "policy")
    episodes = played(folder, version=2)
    for episode in episodes:
        expected = reference_logprobs(policy, episode.tokens, rollout_temperature)
        spans = [
            expected[start - 1 : end - 1] for start, end in zip(episode.action_start, episode.action_end, strict=True)
        ]
        np.testing.assert_allclose(episode.logprobs, np.concatenate(spans), atol=1e-4)
    return len(episodes)


def test_a_users_environment_is_learned_by_native_calls(
    tmp_path: Path, lamp: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sixty steps of cloning teach a random model to call both tools in the format of its template."""
    model = save_tool_model(tmp_path / "model", HERMES, lamp, window=512)
    overrides = [
        "demonstrations.episodes=64",
        "learner.clone.steps=60",
        "learner.clone.batch=16",
        "learner.clone.lr=0.01",
    ]
    overrides += ["rollout.sampling.max_tokens=48", "rollout.system_prompt=You tend a lamp.", "evaluation.greedy=true"]
    folder = learn(tmp_path, model, {"id": lamp}, *overrides)
    assert (
        "tool calls: native, because the chat template writes them and vLLM's parser hermes" in capfd.readouterr().out
    )

    rows = read_rows(folder / "metrics.jsonl")
    cycles = [row for row in rows if row["kind"] == "cycle"]
    clone = next(row for row in rows if row.get("name") == "clone")
    assert clone["invalid_share"] < 0.2
    # Sampled from, the same clone still makes mistakes, which are counted.
    assert all(cycle["metrics"]["rejected_calls"] <= cycle["metrics"]["invalid_actions"] for cycle in cycles)
    assert any(cycle["metrics"]["rejected_calls"] > 0 for cycle in cycles)
    assert check_logprobs(folder) == 8
    text = AutoTokenizer.from_pretrained(model).decode(played(folder, version=2)[0].tokens)
    assert text.startswith("<|im_start|>system\nYou tend a lamp.\n\n<tools>")
    assert text.count("<tools>") == 1


@pytest.mark.parametrize(("template", "env"), [(LLAMA, "support_desk"), (MISTRAL, "tool_use")])
def test_the_environments_with_tools_are_played_natively(tmp_path: Path, template: str, env: str) -> None:
    kwargs = {"level": 1, "cases": 4}
    model = save_tool_model(tmp_path / "model", template, env, **kwargs)
    overrides = [
        "episodes_per_cycle=4",
        "demonstrations.episodes=8",
        "rollout.sampling.max_tokens=40",
        "evaluation.episodes=1",
    ]
    overrides += ["learner.clone.steps=4", "learner.critic.steps_per_cycle=1", "learner.actor.steps_per_cycle=1"]
    overrides += ["learner.actor.fresh_per_state=1", "learner.clone.batch=4"]
    folder = learn(tmp_path, model, {"id": env, "kwargs": {**kwargs, "max_turns": 4}}, *overrides)
    assert check_logprobs(folder) == 4
    found = [
        episode
        for batch in read_archive(folder / "checkpoints" / "cycle-00002")
        for episode in batch_to_episodes(batch)
    ]
    scripted = next(episode for episode in found if episode.worker == "demonstrator")
    # The template describes the tools, so the environment does not explain lines of JSON.
    assert all('{"tool"' not in episode.messages[0]["content"] for episode in found)
    calls = [message["content"] for message in scripted.messages if message["role"] == "assistant"]
    results = [message for message in scripted.messages if message["role"] == "tool"]
    assert len(results) == sum(split_call(text) is not None for text in calls) > 0


def test_a_model_without_a_template_calls_by_lines_of_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    env = {"id": "support_desk", "kwargs": {"level": 1, "cases": 4, "observe": "brief", "max_turns": 3}}
    overrides = ["cycles=0", "learner.clone.steps=1", "demonstrations.episodes=8", "evaluation.episodes=1"]
    train(tmp_path, *overrides, tree=TINY | {"env": env})
    said = "tool calls: lines of JSON, because without a chat template there is no other form"
    assert said in capfd.readouterr().out


def test_impossible_calls_end_the_run_before_it_begins(tmp_path: Path) -> None:
    model = save_tool_model(tmp_path / "model", HERMES, "tool_use", level=1, cases=2)
    tree = TINY | {"model": {"path": str(model)}, "env": {"id": "tool_use", "kwargs": {}}}
    for override, says in {
        "rollout.tool_parser=mistral": "vLLM's tool parser 'mistral' does not fit the tokenizer",
        "rollout.tool_parser=hermse": "`rollout.tool_parser` is 'hermse', and vLLM has no such parser; it has ",
    }.items():
        with pytest.raises(ConfigError, match=says):
            train(tmp_path, override, tree=tree)
    config = config_from_tree(tree, ["env.id=key_door", "rollout.tools=native"], source="the test")
    with pytest.raises(ConfigError, match="the environment declares no tools"):
        calls_of(config, str(model))


def test_an_episode_of_native_calls_is_imported_for_any_model(tmp_path: Path, lamp: str) -> None:
    """The calls of the stored messages are the environment's lines of JSON, and the results its plain observations."""
    model = save_tool_model(tmp_path / "model", MISTRAL, lamp, window=512)
    demos = list(envs.demonstrate(lamp, episodes=2, skill=1.0, seed=0))
    write_demonstrations(render(demos, model, RolloutConfig(), tools=LAMP.schemas), tmp_path / "native.arrow")
    assert read_imports([str(tmp_path / "native.arrow")], env=lamp) == demos
