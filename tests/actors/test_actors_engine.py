"""A real engine: the actions that it samples, and their log-probabilities and versions."""

import asyncio
import os
import signal

import numpy as np
import pytest
import torch
from actor_cases import Served, byte_tokenizer, load_model, reference_logprobs, save_model

from actors.config import EngineConfig, SamplingConfig
from actors.errors import EngineDied, PromptTooLong
from actors.inline.engine import InlineEngine
from actors.rollout.action_request import ActionRequest
from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.config import BroadcastConfig
from learner.models.policy import Policy
from learner.models.pretrained import load_causal_model
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, action_record, fresh_record

pytestmark = pytest.mark.engine

PROMPT = [70, 80, 90, 100]
WARM = SamplingConfig(temperature=0.7, max_tokens=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def served(folder):
    served = Served(folder, version=7)
    yield served
    served.close()


@pytest.fixture(scope="module")
def with_stop_text(folder):
    """An engine with a stop text, which the last test of this file kills."""
    served = Served(folder, version=3, stop_text="Q")
    yield served
    served.close()


def test_logprobs_are_those_of_the_distribution_sampled_from(served, folder):
    model = load_model(folder)
    completions = served.generate(PROMPT, 8, WARM)
    assert len({tuple(c.token_ids) for c in completions}) > 1
    for completion in completions:
        expected = reference_logprobs(model, PROMPT + completion.token_ids, 0.7)[len(PROMPT) - 1 :]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
        assert completion.versions == [7] * len(completion.token_ids)


def test_sampling_follows_the_temperature_and_cuts_nothing(served, folder):
    """Compare token frequencies with the model's distribution: temperature applied, no top-k, no top-p."""
    model = load_model(folder)
    one = SamplingConfig(temperature=0.7, max_tokens=1)
    drawn = [c.token_ids[0] for c in served.generate(PROMPT, 4000, one)]
    counts = np.bincount(drawn, minlength=272)
    probabilities = np.array([np.exp(reference_logprobs(model, [*PROMPT, t], 0.7)[-1]) for t in range(272)])
    expected = 4000 * probabilities
    often = expected > 5
    chi_square = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = often.sum()
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom)
    # With top_k=50 the tail would be empty.
    tail = np.argsort(-probabilities)[100:]
    assert counts[tail].sum() > 0.5 * expected[tail].sum()


def _played(served, sampling, episodes=6, turns=4, fresh=3):
    """Return rows of the learner with the engine's actions: a played one at each turn, and fresh ones at its state."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(episodes):
        tokens = rng.integers(3, 272, 3 + number).tolist()
        record, proposals, start, end = [], [], [], []
        for _ in range(turns):
            action, *others = served.generate(tokens, 1 + fresh, sampling)
            start.append(len(tokens))
            end.append(len(tokens) + len(action.token_ids))
            record.append(action)
            proposals += others
            tokens = [*tokens, *action.token_ids, *rng.integers(3, 272, 2).tolist()]
        episode = Episode(
            episode_id=f"episode-{number}",
            tokens=np.array(tokens, np.int32),
            action_start=np.array(start, np.int32),
            action_end=np.array(end, np.int32),
            reward=np.zeros(turns, np.float32),
            logprobs=np.array([x for a in record for x in a.logprobs], np.float32),
            versions=np.array([x for a in record for x in a.versions], np.int32),
            terminated=False,
            truncated=True,
        )
        written = FreshActions(
            tokens=np.array([x for a in proposals for x in a.token_ids], np.int32),
            offsets=np.cumsum([0, *(len(a.token_ids) for a in proposals)]),
            logprobs=np.array([x for a in proposals for x in a.logprobs], np.float32),
            versions=np.array([x for a in proposals for x in a.versions], np.int32),
            counts=np.full(turns, fresh, np.int32),
        )
        rows.append(Row(episode, np.arange(turns, dtype=np.int32), fresh=written))
    return rows


@pytest.mark.parametrize("temperature", [0.7, 1.6])
def test_the_learner_computes_the_logprobs_that_the_engine_wrote_down(served, folder, temperature):
    """Compare every token of played and fresh actions, stop tokens included, in one packed pass with padding."""
    rows = _played(served, SamplingConfig(temperature=temperature, max_tokens=40))
    layout = PackedEncoder(0).encode(rows, ("action", "fresh"))
    policy = Policy(load_causal_model(folder, "float32"), temperature)
    for part, record in (("action", action_record), ("fresh", fresh_record)):
        predictions = layout.predictions[part]
        written, versions = record(rows)
        assert set(versions.tolist()) == {7}
        with torch.no_grad():
            found = policy(layout, predictions).numpy()
            forgotten = policy(layout, predictions, temperature=1.0).numpy()
        np.testing.assert_allclose(found, written, atol=1e-4)
        assert np.abs(forgotten - written).mean() > 0.1, "a temperature that is forgotten must show"
        assert (predictions.token == 2).any(), "stop tokens are trained on"


def test_the_stop_token_is_the_actions_last(served):
    completions = served.generate(PROMPT, 256, SamplingConfig(max_tokens=64))
    assert any(completion.token_ids[-1] == 2 for completion in completions)
    for completion in completions:
        assert 2 not in completion.token_ids[:-1]
        assert len(completion.logprobs) == len(completion.token_ids)
        assert len(completion.token_ids) == 64 or completion.token_ids[-1] == 2


def test_greedy_takes_the_likeliest_token(served, folder):
    (completion,) = served.generate(PROMPT, 1, WARM, greedy=True)
    ids = torch.tensor([PROMPT + completion.token_ids])
    with torch.no_grad():
        likeliest = load_model(folder)(ids).logits.argmax(-1)[0, len(PROMPT) - 1 : -1]
    assert completion.token_ids == likeliest.tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_probe_gives_the_models_logprobs_at_the_temperature(served, folder, temperature):
    tokens = np.random.default_rng(0).integers(0, 272, 100)
    for _ in range(2):  # the second time from the prefix cache
        answer = served.run(served.engine.probe(tokens, temperature))
        assert answer.dtype == np.float32
        expected = reference_logprobs(load_model(folder), tokens, temperature)
        np.testing.assert_allclose(answer, expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.7, 1.6])
def test_the_inline_sampler_and_the_engine_agree_on_each_others_actions(served, folder, temperature):
    """Compare the log-probabilities of the same tokens, played and fresh, within the proof's tolerance."""
    tolerance = BroadcastConfig().tolerance
    sampling = SamplingConfig(temperature=temperature, max_tokens=20)
    inline = InlineEngine(str(folder), EngineConfig(), stop_token_ids=[2], seed=0, seats=4)
    for row in _played(served, sampling, episodes=3):
        ours = inline.probe(row.episode.tokens, temperature)
        positions = np.concatenate(
            [np.arange(a, b) - 1 for a, b in zip(row.episode.action_start, row.episode.action_end, strict=True)]
        )
        np.testing.assert_allclose(ours[positions], row.episode.logprobs, atol=tolerance)
    rng = np.random.default_rng(2)
    whole = rng.integers(3, 272, 60).astype(np.int32)
    states = [whole[:length] for length in (5, 23, 23, 60)]
    fresh = inline.act(ActionRequest.of(states, 2, True), sampling)
    for k, state in enumerate(state for state in states for _ in range(2)):
        action = fresh.action(k)
        theirs = served.run(served.engine.probe([*state, *action.tokens], temperature))[len(state) - 1 :]
        np.testing.assert_allclose(action.logprobs, theirs, atol=tolerance)


def test_a_prompt_longer_than_the_window_is_refused_with_numbers(served):
    with pytest.raises(PromptTooLong, match=r"256 tokens .* context window of 256.*max_model_len"):
        served.generate([5] * 256, 1, WARM)
    (cut,) = served.generate([5] * 250, 1, WARM)
    assert len(cut.token_ids) <= 6


def test_a_thought_has_a_budget_of_its_own_and_every_token_is_sampled(served, folder):
    model = load_model(folder)
    sampling = SamplingConfig(temperature=1.0, max_tokens=5, thought_tokens=40)
    end = 80
    served.engine._thought_end = end
    try:
        played = [c for prompt in (PROMPT, PROMPT[:2]) for c in served.generate(prompt, 150, sampling)]
    finally:
        served.engine._thought_end = None
    lengths = set()
    for number, completion in enumerate(played):
        prompt = PROMPT if number < 150 else PROMPT[:2]
        tokens = completion.token_ids
        thought = tokens.index(end) + 1 if end in tokens else None
        lengths.add((thought is not None, len(tokens) - (thought or 0)))
        assert len(tokens) <= (40 if thought is None else thought + 5)
        assert completion.versions == [7] * len(tokens)
        expected = reference_logprobs(model, prompt + tokens, 1.0)[len(prompt) - 1 :]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
    assert {(True, 5), (False, 40)} <= lengths


def test_a_stop_text_ends_an_action_and_is_part_of_it(with_stop_text, folder):
    actions = with_stop_text.generate(PROMPT, 200, SamplingConfig(max_tokens=60))
    model, letter = load_model(folder), byte_tokenizer().convert_tokens_to_ids("Q")
    stopped = 0
    for action in actions:
        assert letter not in action.token_ids[:-1]
        stopped += action.token_ids[-1] == letter
        assert action.token_ids[-1] in (letter, 2) or len(action.token_ids) == 60
        assert action.versions == [3] * len(action.token_ids)
        expected = reference_logprobs(model, PROMPT + action.token_ids, 1.0)[len(PROMPT) - 1 :]
        np.testing.assert_allclose(action.logprobs, expected, atol=1e-4)
    assert stopped > 10


def test_a_dead_engine_ends_every_wait(with_stop_text):
    served = with_stop_text
    process = served.engine._llm.engine_core.resources.engine_manager.processes[0]
    long = served.submit(served.engine.generate(PROMPT, 64, SamplingConfig(max_tokens=200)))
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineDied):
        long.result(60)
    served.run(asyncio.wait_for(served.engine.died.wait(), 60))
    with pytest.raises(EngineDied):
        served.run(served.engine.start_weight_update(), 60)
