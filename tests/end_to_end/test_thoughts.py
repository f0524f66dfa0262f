"""Two cycles of a tiny thinking Qwen3 on the real stack, on an environment of the user that sometimes fails.

One run keeps the thoughts and trains by REINFORCE, the other drops them and trains by ArCHer.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loop_cases import ALGORITHMS, archer, assert_trained, write_config
from thinking_cases import check_logprobs, played, save_thinking_model, thinking_tokenizer

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

ENVIRONMENT = '''
import envs


class Echo:
    """Answers with what the action says, and in one episode of five with half of a surrogate pair."""

    spec = envs.EnvSpec(id="echo", description="Echoes.", max_turns=3, reward_range=(0.0, 3.0))

    def reset(self, *, seed, options=None):
        self._seed = seed
        return [{"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "more."}]}], {}

    def step(self, action):
        heard = "\\ud800" if self._seed % 5 == 2 else f"You said {action[:20]}<|im_end|>."
        return heard, float(not action), False, False, {"success": False}

    def close(self):
        pass
'''


@pytest.mark.parametrize(
    ("thoughts", "algorithm", "metric"), [("keep", "reinforce", "actor/loss"), ("drop", "archer", "actor/advantage")]
)
def test_two_cycles_of_a_thinking_model(
    cluster_address: str, tmp_path: Path, thoughts: str, algorithm: str, metric: str
) -> None:
    (tmp_path / "my_echo.py").write_text(ENVIRONMENT)
    config = write_config(
        tmp_path,
        algorithm=algorithm,
        episodes_per_cycle=16,
        model={"path": str(save_thinking_model(tmp_path / "model")), "build": None},
        env={"id": "my_echo:Echo"},
        demonstrations={"episodes": 0, "keep_in_replay": False},
        rollout={"thoughts": thoughts, "sampling": {"max_tokens": 12, "thought_tokens": 30}},
        learner=ALGORITHMS | {"clone": {"steps": 0}, "critic": {"build": None}},
        replay={"shards": 1},
    )
    with archer(tmp_path, "train", str(config), PYTHONPATH=str(tmp_path), RAY_ADDRESS=cluster_address) as run:
        assert run.finish() == 0, run.output
    assert_trained(run.folder, metric, cycles=2, version=2)
    episodes = played(run.folder, version=1)
    assert len(episodes) == len({episode.episode_id for episode in episodes}) >= 12
    check_logprobs(run.folder / "checkpoints" / "cycle-00001" / "policy", episodes)
    tokenizer = thinking_tokenizer(None)
    end_of_thought, end = (tokenizer.convert_tokens_to_ids(token) for token in ("</think>", "<|im_end|>"))
    ended = 0
    for episode in episodes:
        assert (len(episode.state_start) > 0) == (thoughts == "drop")
        clocks = {tokenizer.decode(episode.state(turn)).partition("\n")[0] for turn in range(episode.turns)}
        assert len(clocks) == 1, "one clock for the episode"
        for turn in range(episode.turns):
            ended += end_of_thought in episode.tokens[episode.action_start[turn] : episode.action_end[turn]]
        last = episode.state(episode.turns).tolist()
        assert last.count(end) == 2 * episode.turns + 1, "a message ends where the template or the policy ends it"
    assert ended > 3
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["proof_max_gap"] < 1e-4
    assert summary["dropped"]["episodes"] >= 6
    assert "step of echo, turn 1: the observation is '\\ud800'" in summary["dropped"]["reason"]
    assert "could not be played" in run.output
