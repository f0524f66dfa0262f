"""Dropped thoughts: every turn reads what a server of these models would render, and the row holds what was sampled."""

import asyncio

import numpy as np
import pytest
from actor_cases import Fragile, ScriptedEngine
from chat_templates import LLAMA3, QWEN3, R1
from test_actors_thoughts import NOW
from thinking_cases import thinking_tokenizer

from actors.config import RolloutConfig, SamplingConfig
from actors.errors import RenderError
from actors.rendering.factory import make_renderer, render_demonstration
from actors.rollout.episode import run_episode
from buffer.episodes.schema import episodes_to_batch
from buffer.episodes.validation import validate
from envs import AsyncEnv, Demonstration, TimeLimit

SAYS = ["<think>hm</think>\n\nhello<|im_end|>", "bad<|im_end|>", "<think>so</think>\n\ngo on<|im_end|>"]
SAID = ["hello", "bad", "go on"]


class ThinkingEngine(ScriptedEngine):
    def __init__(self, says, window):
        super().__init__(says, window)
        self.tokenizer = thinking_tokenizer(None)


def _says(template):
    """Return the actions; where the generation prompt begins a thought, each of them ends it."""
    return SAYS if template != R1 else [SAYS[0], "</think>\n\n" + SAYS[1], SAYS[2]]


def _play(template, thoughts, window=1000):
    tokenizer = thinking_tokenizer(template)
    renderer = make_renderer(RolloutConfig(thoughts=thoughts), tokenizer)
    engine = ThinkingEngine(_says(template), window)
    env = AsyncEnv(TimeLimit(Fragile(from_seed=100)))
    sampling = SamplingConfig(max_tokens=30)
    played = asyncio.run(run_episode(env, engine, renderer, sampling, NOW, seed=7, episode_id="e"))
    validate(episodes_to_batch([played.episode]))
    return tokenizer, engine, played


def _served(tokenizer, turns):
    """Return what a chat server renders for the turn after `turns` turns."""
    messages = [{"role": "user", "content": "Say something."}]
    for said in SAID[:turns]:
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": f"You said {said}."}]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, strftime_now=NOW.strftime_now
    )


@pytest.mark.parametrize("template", [QWEN3, R1, LLAMA3])
def test_each_turn_reads_the_history_as_it_is_served(template):
    tokenizer, engine, played = _play(template, "drop")
    episode = played.episode
    for turn in range(3):
        assert tokenizer.decode(engine.prompts[turn]) == _served(tokenizer, turn)
        assert episode.state(turn).tolist() == engine.prompts[turn]
        action = episode.tokens[episode.action_start[turn] : episode.action_end[turn]]
        assert tokenizer.decode(action) == _says(template)[turn], "the thought is part of what is trained on"
    assert tokenizer.decode(episode.state(3)) == _served(tokenizer, 3)
    # The second action has no thought, so what follows it goes on in its segment, unless the prompt opens a thought.
    segments = [0, 1, 2, 3] if template == R1 else [0, 1, 1, 2]
    assert np.unique(episode.state_start, return_inverse=True)[1].tolist() == segments
    assert [m["content"] for m in episode.messages if m["role"] == "assistant"] == [
        text.removesuffix("<|im_end|>") for text in _says(template)
    ]


def test_kept_thoughts_stay_in_one_segment():
    tokenizer, engine, played = _play(QWEN3, "keep")
    assert len(played.episode.state_start) == 0
    for turn, prompt in enumerate(engine.prompts):
        assert played.episode.tokens[: played.episode.state_end(turn)].tolist() == prompt
    assert tokenizer.decode(engine.prompts[2]).count("<think>") == 1
    assert [m["content"] for m in played.episode.messages if m["role"] == "user"][1] == "You said hello."


def test_the_window_holds_the_longest_context_and_not_the_whole_episode():
    _, _, free = _play(QWEN3, "drop")
    longest = max(len(free.episode.state(turn)) for turn in range(3))
    assert len(free.episode.tokens) > longest + 60
    _, _, played = _play(QWEN3, "drop", window=longest + 30)
    assert (played.window_truncated, played.episode.turns) == (False, 3)
    _, _, played = _play(QWEN3, "drop", window=longest + 29)
    assert (played.window_truncated, played.episode.turns) == (True, 2)


@pytest.mark.parametrize("thoughts", ["keep", "drop"])
def test_a_turn_that_the_template_refuses_is_named(thoughts):
    template = QWEN3.replace(
        "{%- for message in messages %}",
        "{%- for message in messages %}{%- if 'bad' in message.content and message.role == 'user' %}"
        "{{- raise_exception('I refuse') }}{%- endif %}",
        1,
    )
    with pytest.raises(RenderError, match=r"^fragile, turn 2: the chat template rejects.*I refuse"):
        _play(template, thoughts)


def test_a_demonstration_without_thoughts_is_one_segment():
    demo = Demonstration("x", "t", 0, ["Begin.", "On.", "Over."], ["Go", "Stay"], [0.0, 1.0], True, False, None)
    kept, dropped = (
        render_demonstration(demo, make_renderer(RolloutConfig(thoughts=mode), thinking_tokenizer(QWEN3)), NOW)
        for mode in ("keep", "drop")
    )
    assert len(dropped.state_start) == 0
    assert dropped.tokens.tolist() == kept.tokens.tolist()
