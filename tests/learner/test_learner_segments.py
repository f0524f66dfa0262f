"""Episodes of several segments: passes over them agree with passes over each state alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_cases import VOCABULARY, gpt2, llama, make_row
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig

from buffer.episodes.schema import Episode, batch_to_episodes, episodes_to_batch
from buffer.episodes.validation import validate
from learner.models.critic import Critic
from learner.models.policy import Policy, sequence_logprobs
from learner.passes.attention import TREE
from learner.passes.packed_encoder import PackedEncoder, observation_tokens
from learner.passes.rows import Row, whole_episodes
from learner.passes.separate_encoder import SeparateEncoder

PARTS = ("state", "action", "next_state", "next_states", "fresh")


def split(episode: Episode, changed: int | None = None) -> Episode:
    """Return the episode with every second state as a segment of its own, which repeats the tokens before it.

    Args:
        changed: seed of other tokens at the beginning of each later segment, in place of the repeated ones.
    """
    tokens: list[int] = episode.tokens[: episode.action_end[0]].tolist()
    starts, action_start, action_end = [0], [int(episode.action_start[0])], [int(episode.action_end[0])]
    for turn in range(1, episode.turns + 1):
        begun, before = episode.state_end(turn), int(episode.action_end[turn - 1])
        if turn % 2:
            starts.append(len(tokens))
            history = episode.tokens[:begun].copy()
            if changed is not None:
                history[: before // 2] = np.random.default_rng(changed + turn).integers(1, VOCABULARY, before // 2)
            tokens += history.tolist()
        else:
            starts.append(starts[-1])
            tokens += episode.tokens[before:begun].tolist()
        if turn < episode.turns:
            action_start.append(len(tokens))
            tokens += episode.tokens[begun : episode.action_end[turn]].tolist()
            action_end.append(len(tokens))
    arrays = (np.array(values, np.int32) for values in (tokens, starts, action_start, action_end))
    return replace(episode, **dict(zip(("tokens", "state_start", "action_start", "action_end"), arrays, strict=True)))


def _models(config: PretrainedConfig) -> tuple[Critic, Policy]:
    critic = Critic(AutoModel.from_config(config), 32).eval()
    return critic, Policy(AutoModelForCausalLM.from_config(config).eval(), temperature=0.7)


@pytest.fixture(params=[llama, gpt2], ids=["llama", "gpt2"])
def config(request: pytest.FixtureRequest) -> PretrainedConfig:
    torch.manual_seed(0)
    made = request.param()
    made._attn_implementation = TREE
    return made


def test_segments_that_repeat_the_history_give_what_one_segment_gives(config: PretrainedConfig) -> None:
    critic, policy = _models(config)
    whole = [make_row(seed) for seed in range(4)]
    parted = [replace(row, episode=split(row.episode)) for row in whole]
    found = []
    for rows in (whole, parted):
        layout = PackedEncoder(0).encode(rows, PARTS, 3)
        with torch.no_grad():
            values = critic(layout, q=("action", "fresh"), v=("state", "next_state", "next_states"))
            for part in ("action", "fresh"):
                predictions = layout.predictions[part]
                values |= {part: policy(layout, predictions)}
                values |= {f"{part} {name}": getattr(predictions, name) for name in ("token", "sample", "action")}
        found.append(values)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=0, msg=name)


def test_observation_tokens_are_predicted_once_however_often_the_history_repeats_them() -> None:
    torch.manual_seed(0)
    _, policy = _models(llama())
    whole = [make_row(seed, all_turns=True, fresh=0) for seed in range(3)]
    parted = [replace(row, episode=split(row.episode)) for row in whole]
    found = []
    for rows in (whole, parted):
        layout = PackedEncoder(0).encode(rows, ("state", "observation"), 1)
        predictions = layout.predictions["observation"]
        assert len(predictions.token) == observation_tokens(rows, 1)
        with torch.no_grad():
            logprobs = policy(layout, predictions)
        order = np.lexsort((logprobs.numpy().round(4), predictions.token, predictions.sample))
        found.append((predictions.token[order], predictions.sample[order], logprobs[order]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_states_of_other_segments_are_read_in_their_own_context(config: PretrainedConfig) -> None:
    critic, policy = _models(config)
    rows = [replace(row := make_row(seed), episode=split(row.episode, changed=seed)) for seed in range(5)]
    rows.append(make_row(9))  # one segment beside them

    with torch.no_grad():
        layout = PackedEncoder(0).encode(rows, PARTS, 3)
        q, v = ("action", "fresh"), ("state", "next_state", "next_states")
        packed = critic(layout, q=q, v=v)
        separate = critic(SeparateEncoder(0).encode(rows, PARTS, 3), q=q, v=v)
        logprobs = {part: policy(layout, layout.predictions[part]).numpy() for part in ("action", "fresh")}
    for name in packed:
        torch.testing.assert_close(packed[name], separate[name], atol=1e-5, rtol=0)
    alone: dict[str, list[np.ndarray]] = {"action": [], "fresh": []}
    for row in rows:
        for sample, turn in enumerate(map(int, row.turns)):
            data = row.episode.tokens[row.episode.action_start[turn] : row.episode.action_end[turn]]
            for part, actions in (("action", [data]), ("fresh", row.fresh_at(sample))):
                for action in actions:
                    text = np.concatenate((row.episode.state(turn), action))
                    alone[part].append(sequence_logprobs(policy, text)[-len(action) :])
    for part, expected in alone.items():
        np.testing.assert_allclose(logprobs[part], np.concatenate(expected), atol=1e-5, rtol=0)


def test_rows_that_bootstrap_read_their_last_state_in_its_segment() -> None:
    torch.manual_seed(0)
    critic, _ = _models(llama())
    episode = split(make_row(3, turns=5, terminated=False).episode, changed=1)
    row: Row = whole_episodes([Row(episode, np.arange(5, dtype=np.int32))], window=len(episode.state(5)) + 1)[0]
    assert row.bootstraps
    assert len(row.turns) == 5
    assert len(whole_episodes([row], window=len(episode.state(5)))[0].turns) == 4, "no room for another action"
    row.fresh = make_row(3, turns=6, all_turns=True, terminated=False).fresh
    with torch.no_grad():
        packed = critic(PackedEncoder(0).encode([row], ("fresh", "action"), 1), q=("fresh",))
        separate = critic(SeparateEncoder(0).encode([row], ("fresh", "action"), 1), q=("fresh",))
    torch.testing.assert_close(packed["q_fresh"], separate["q_fresh"], atol=1e-5, rtol=0)


def test_episodes_of_several_segments_pass_through_the_table() -> None:
    episodes = [split(make_row(seed).episode) for seed in range(3)] + [make_row(5).episode]
    batch = episodes_to_batch(episodes)
    validate(batch)
    for one, other in zip(episodes, batch_to_episodes(batch), strict=True):
        assert one.state_start.tolist() == other.state_start.tolist()
        assert [one.state(t).tolist() for t in range(one.turns + 1)] == [
            other.state(t).tolist() for t in range(one.turns + 1)
        ]
