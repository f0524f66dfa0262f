"""The sampler of inline runs: its distribution in closed form, its caches, and the episodes that it plays."""

import asyncio
import gc
import itertools
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import torch
from actor_cases import Fragile, change, load_model, reference_logprobs, save_model
from transformers import LlamaConfig, LlamaForCausalLM

import actors.inline.tree
from actors.config import EngineConfig, RolloutConfig, SamplingConfig
from actors.errors import (
    ActorError,
    EngineStartError,
    EnvFailureLimit,
    PromptTooLong,
    RolloutTimeout,
    WeightTransferError,
)
from actors.inline.engine import InlineEngine
from actors.inline.model import InlineModel
from actors.inline.rollouts import InlineRollouts
from actors.inline.tree import trunks
from actors.rollout.action_request import ActionRequest
from actors.rollout.player import WorkerArgs
from bench.families import FAMILIES
from buffer.episodes.schema import Episode, batch_to_episodes
from buffer.rollout_records import FreshActions
from learner.models.policy import Policy
from learner.models.pretrained import load_causal_model
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, fresh_record

WARM = SamplingConfig(temperature=0.7, max_tokens=3)
STATE = np.array([3, 1, 4], np.int32)
ENV = "twenty_questions_subset"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of five tokens, token 2 ends an action, so that all actions of three tokens can be enumerated."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=5,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


def engine_of(folder, *, seats=4, seed=0, **kwargs):
    return InlineEngine(str(folder), EngineConfig(), stop_token_ids=[2], seed=seed, seats=seats, **kwargs)


def enumerated(folder, state, sampling):
    """Return every action of a state and its probability under the model at the sampling temperature."""
    model = load_model(folder)
    found = {}
    for length in range(1, sampling.max_tokens + 1):
        for action in itertools.product(range(model.config.vocab_size), repeat=length):
            ends = action[-1] == 2 or length == sampling.max_tokens
            if ends and 2 not in action[:-1]:
                logprobs = reference_logprobs(model, [*state, *action], sampling.temperature)
                found[action] = float(np.exp(logprobs[len(state) - 1 :].sum()))
    assert abs(sum(found.values()) - 1) < 1e-4
    return found


def actions_of(fresh):
    return [tuple(fresh.action(k).tokens.tolist()) for k in range(len(fresh.offsets) - 1)]


def assert_follows(actions, probabilities):
    """Compare frequencies with probabilities by chi-square over the actions that are expected more than five times."""
    n = len(actions)
    often = {action: p for action, p in probabilities.items() if n * p > 5}
    counts = {action: 0 for action in often}
    for action in actions:
        if action in counts:
            counts[action] += 1
    chi_square = sum((counts[action] - n * p) ** 2 / (n * p) for action, p in often.items())
    assert len(often) > 10
    assert chi_square < len(often) + 6 * np.sqrt(2 * len(often))


def play(engine, prompts, sampling, **kwargs):
    """Return one action for each prompt, each from a seat of its own, all in flight at once."""

    async def one(prompt):
        with engine.seat() as seat:
            return await seat.generate(prompt, 1, sampling, **kwargs)

    async def all_of_them():
        return await asyncio.gather(*(one(prompt) for prompt in prompts))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("logits_at_once", [11, 1 << 23])
def test_shared_prefixes_sample_the_enumerated_distribution(small, monkeypatch, logits_at_once):
    """The states are prefixes of each other and occur twice, so that their trees share one trunk."""
    monkeypatch.setattr(actors.inline.tree, "LOGITS_AT_ONCE", logits_at_once)
    states = [STATE[:2], STATE, STATE[:2], STATE]
    fresh = engine_of(small).act(ActionRequest.of(states, np.array([4000, 4000, 2000, 500]), True), WARM)
    cuts = np.cumsum([4000, 4000, 2000])
    parts = [actions_of(fresh)[a:b] for a, b in itertools.pairwise([0, *cuts, 10500])]
    for state, part in zip(states, parts, strict=True):
        assert_follows(part, enumerated(small, state.tolist(), WARM))


def test_seats_sample_the_enumerated_distribution(small):
    engine = engine_of(small, seats=1000)
    actions = [tuple(a.tokens.tolist()) for _ in range(4) for a in play(engine, [STATE.tolist()] * 1000, WARM)]
    assert_follows(actions, enumerated(small, STATE.tolist(), WARM))


def test_actions_of_one_state_are_independent(small):
    """Two actions of a state are equal with the probability sum p^2. In an order by content they would be more often,
    and the first would not follow the distribution alone."""
    probabilities = enumerated(small, STATE.tolist(), WARM)
    actions = actions_of(engine_of(small).act(ActionRequest.of([STATE] * 100, 60, True), WARM))
    neighbours = np.mean([a == b for a, b in zip(actions[::2], actions[1::2], strict=True)])
    expected = sum(p**2 for p in probabilities.values())
    assert abs(neighbours - expected) < 4 * np.sqrt(expected * (1 - expected) / (len(actions) / 2))
    assert_follows(actions[::2], probabilities)


def test_the_learner_computes_the_logprobs_that_the_sampler_wrote_down(folder):
    """Compare fresh actions at all states of several episodes, the state after the last turn included.

    The packed rows are longer than the window, as those with many fresh actions are.
    """
    rng = np.random.default_rng(5)
    engine = engine_of(folder, version=7)
    sampling = SamplingConfig(temperature=0.7, max_tokens=20)
    rows, turns = [], 4
    for number in range(5):
        tokens = rng.integers(3, 272, 30 + 7 * number).astype(np.int32)
        start = np.array([3, 9, 15, 21], np.int32) + number
        episode = Episode(
            episode_id=str(number),
            tokens=tokens,
            action_start=start,
            action_end=start + 3,
            reward=np.zeros(turns, np.float32),
            logprobs=np.zeros(3 * turns, np.float32),
            versions=np.zeros(3 * turns, np.int32),
            terminated=False,
            truncated=True,
        )
        rows.append(Row(episode, np.arange(turns, dtype=np.int32)))
    states = [row.episode.tokens[: row.episode.state_end(turn)] for row in rows for turn in range(turns)]
    states.append(rows[0].episode.tokens)
    fresh = engine.act(ActionRequest.of(states, 3, True), sampling)
    assert set(fresh.versions.tolist()) == {7}
    parts = [fresh.action(k) for k in range(3 * len(states))]
    for number, row in enumerate(rows):
        row.fresh = FreshActions.join(parts[3 * turns * number : 3 * turns * (number + 1)])
        row.fresh.counts = np.full(turns, 3, np.int32)
    layout = PackedEncoder(0).encode(rows, ("fresh",))
    policy = Policy(load_causal_model(folder, "float32"), 0.7)
    with torch.no_grad():
        found = policy(layout, layout.predictions["fresh"]).numpy()
    np.testing.assert_allclose(found, fresh_record(rows)[0], atol=1e-4)
    model = load_model(folder)
    for part in parts[-3:]:
        whole = [*states[-1].tolist(), *part.tokens.tolist()]
        expected = reference_logprobs(model, whole, 0.7)[len(states[-1]) - 1 :]
        np.testing.assert_allclose(part.logprobs, expected, atol=1e-4)


def test_a_seat_keeps_its_keys_and_values_over_the_turns_and_drops_what_changed(folder):
    """Play turns of ragged lengths on three seats; the last turn of one seat has another history."""
    model, engine = load_model(folder), engine_of(folder, seats=3)
    sampling = SamplingConfig(temperature=1.3, max_tokens=9)
    rng = np.random.default_rng(1)
    fed = []
    feed = engine._feed
    engine._feed = lambda slots, chunks: fed.append(sum(map(len, chunks))) or feed(slots, chunks)

    async def one(length):
        tokens = rng.integers(3, 272, length).tolist()
        with engine.seat() as seat:
            for turn in range(5):
                if turn == 4 and length == 20:
                    tokens = [*tokens[:11], *rng.integers(3, 272, 6).tolist()]
                action = await seat.generate(tokens, 1, sampling)
                new = action.tokens.tolist()
                expected = reference_logprobs(model, tokens + new, 1.3)[len(tokens) - 1 :]
                np.testing.assert_allclose(action.logprobs, expected, atol=1e-4)
                tokens = [*tokens, *new, *rng.integers(3, 272, 1 + length % 5).tolist()]
        return len(tokens)

    async def all_of_them():
        return await asyncio.gather(*(one(length) for length in (5, 20, 11)))

    total = sum(asyncio.run(all_of_them()))
    assert sum(fed) < 1.5 * total, "each token is fed once, except where the history changed"


def test_greedy_takes_the_likeliest_token(folder):
    engine, model = engine_of(folder), load_model(folder)
    prompt = [70, 80, 90]
    (action,) = play(engine, [prompt], SamplingConfig(max_tokens=12), greedy=True)
    ids = [*prompt, *action.tokens.tolist()]
    with torch.no_grad():
        likeliest = model(torch.tensor([ids])).logits.argmax(-1)[0, len(prompt) - 1 : -1]
    assert action.tokens.tolist() == likeliest.tolist()


def test_new_weights_reach_the_actions_the_probe_and_the_seats(folder):
    engine, model = engine_of(folder, seats=1), load_model(folder)
    tokens = np.random.default_rng(0).integers(0, 272, 40)
    np.testing.assert_allclose(engine.probe(tokens, 0.7), reference_logprobs(model, tokens, 0.7), atol=1e-4)

    async def played():
        with engine.seat() as seat:
            before = await seat.generate(tokens.tolist(), 1, WARM)
            change(model, seed=1)
            engine.load(4, model.named_parameters())
            longer = [*tokens.tolist(), *before.tokens.tolist(), 5]
            return longer, await seat.generate(longer, 1, WARM)

    longer, action = asyncio.run(played())
    expected = reference_logprobs(model, [*longer, *action.tokens.tolist()], 0.7)[len(longer) - 1 :]
    np.testing.assert_allclose(action.logprobs, expected, atol=1e-4)
    assert set(action.versions.tolist()) == {4}
    np.testing.assert_allclose(engine.probe(tokens, 0.7), reference_logprobs(model, tokens, 0.7), atol=1e-4)
    weights = dict(model.named_parameters())
    name = next(iter(weights))
    with pytest.raises(WeightTransferError, match=f"sent {name} of shape"):
        engine.load(5, [(name, torch.zeros(1))])
    with pytest.raises(WeightTransferError, match=f"did not send the weights .*{name}"):
        engine.load(5, [(other, weight) for other, weight in weights.items() if other != name])


def test_the_window_cuts_actions_and_refuses_longer_prompts(folder):
    engine = engine_of(folder)
    sampling = SamplingConfig(max_tokens=40)
    with pytest.raises(PromptTooLong, match=r"256 tokens .* context window of 256.*max_model_len"):
        engine.act(ActionRequest.of([np.full(256, 5)], 1, True), sampling)
    prompts = [np.full(250, 5), np.full(9, 5), np.full(253, 6)]
    fresh = engine.act(ActionRequest.of(prompts, np.array([5, 2, 3]), False), sampling)
    lengths = np.diff(fresh.offsets)
    assert lengths[:5].max() <= 6
    assert lengths[7:].max() <= 3
    assert fresh.counts.tolist() == [5, 2, 3]
    assert len(fresh.logprobs) == 0
    played = play(engine, [prompt.tolist() for prompt in prompts], sampling)
    assert len(played[0].tokens) <= 6
    assert len(played[2].tokens) <= 3


def test_one_request_for_many_states_and_a_request_for_each_have_answers_of_one_form(folder):
    engine, sampling = engine_of(folder, version=3), SamplingConfig(max_tokens=1)
    whole = np.arange(10, 30, dtype=np.int32)
    states, counts = [whole, whole[:5], whole, whole[:9]], np.array([1, 4, 2, 3])
    together = engine.act(ActionRequest.of(states, counts, True), sampling)
    alone = [engine.act(ActionRequest.of([s], int(n), True), sampling) for s, n in zip(states, counts, strict=True)]
    joined = FreshActions.join(alone)
    for name in ("tokens", "offsets", "logprobs", "versions", "counts"):
        one, other = getattr(together, name), getattr(joined, name)
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
    np.testing.assert_array_equal(together.counts, joined.counts)
    np.testing.assert_array_equal(together.offsets, joined.offsets)


def test_trunks_are_the_states_that_no_other_state_begins_with():
    states = [[1], [1, 2], [1, 2, 3], [1, 300], [2], [1, 2], [1, 2, 3, 4], [300, 1]]
    longest, trunk_of = trunks([np.array(state, np.int32) for state in states])
    assert sorted(map(tuple, (states[i] for i in longest))) == [(1, 2, 3, 4), (1, 300), (2,), (300, 1)]
    for state, trunk in zip(states, trunk_of, strict=True):
        assert states[longest[trunk]][: len(state)] == state


class Kept:
    """A replay that holds the appended episodes."""

    def __init__(self):
        self.episodes = []

    def append(self, batch):
        self.episodes += batch_to_episodes(batch)
        return batch.num_rows


def rollouts_of(folder, replay=None, env=ENV, kwargs=None, **changes):
    config = RolloutConfig(episodes_at_once=3, sampling=SamplingConfig(max_tokens=6), **changes)
    return InlineRollouts(WorkerArgs(config, str(folder), env, kwargs or {"max_turns": 4}, replay, run="r", seed=9))


def test_one_seed_plays_the_same_episodes_again(folder):
    one, other = Kept(), Kept()
    reports = [rollouts_of(folder, replay).collect(8, first_seed=20, group=2) for replay in (one, other)]
    assert [e.episode_id for e in one.episodes] == [f"r-sampled-{i}" for i in range(20, 28)]
    assert [e.seed for e in one.episodes] == [10, 10, 11, 11, 12, 12, 13, 13]
    assert reports[0].next_seed == 28
    np.testing.assert_array_equal(reports[0].returns, [e.ret for e in one.episodes])
    for a, b in zip(one.episodes, other.episodes, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.logprobs, b.logprobs)


def test_an_evaluation_is_not_stored_and_a_request_waits_until_it_is_needed(folder):
    replay = Kept()
    rollouts = rollouts_of(folder, replay)
    report = rollouts.collect(4, first_seed=0, store=False, greedy=True)
    assert len(report.returns) == 4
    assert report.kept == []
    kept = rollouts.collect(8, first_seed=0, store=False, greedy=True, group=2, keep_every=3).kept
    assert [played.episode.seed for played in kept] == [0, 0, 3, 3], "a group stays whole"
    assert all(len(played.stops) == played.episode.turns for played in kept)
    assert replay.episodes == []
    needed = rollouts.request([STATE + 70, STATE], np.array([2, 3]))
    unneeded = rollouts.request([STATE], 2, logprobs=False)
    assert unneeded.cancel()
    assert needed.result(1).counts.tolist() == [2, 3]
    assert needed.result() is needed.result()
    with pytest.raises(CancelledError):
        unneeded.result()


def test_a_critic_in_the_process_picks_the_action_of_every_episode(folder):
    """The scorer prefers the largest first token; the same candidates without it are the policy's own actions."""
    asked = []

    class Largest:
        def choose(self, states, candidates):
            asked.append(len(states))
            firsts = [actions.tokens[actions.offsets[:-1]] for actions in candidates]
            assert {len(first) for first in firsts} == {4}
            assert all(actions.counts.tolist() == [4] for actions in candidates)
            return [int(first.argmax()) for first in firsts]

    config = RolloutConfig(episodes_at_once=6, sampling=SamplingConfig(max_tokens=6))
    mean = []
    for scorer in (Largest(), None):
        kept = Kept()
        args = WorkerArgs(config, str(folder), ENV, {"max_turns": 5}, kept, run="r", seed=9, candidates=4)
        InlineRollouts(args, scorer).collect(12, first_seed=0)
        firsts = [episode.tokens[episode.action_start] for episode in kept.episodes]
        mean.append(np.concatenate(firsts).mean())
    assert mean[0] > mean[1] + 20
    assert max(asked) == 6, "episodes in flight ask together"


def test_failing_environments_and_slow_ones_are_named(folder):
    fragile = f"{Fragile.__module__}:Fragile"
    kept = Kept()
    rollouts = rollouts_of(folder, kept, fragile, {"from_seed": 3}, env_failure_limit=9)
    report = rollouts.collect(5, first_seed=0)
    assert report.env_failures == 2
    assert [e.seed for e in kept.episodes] == [0, 1, 2]
    with pytest.raises(EnvFailureLimit, match=r"3 consecutive episodes.*lost my state"):
        rollouts_of(folder, None, fragile, {}, env_failure_limit=3).collect(5, first_seed=0)
    rollouts = rollouts_of(folder)
    with pytest.raises(RolloutTimeout, match=r"300 episodes did not finish within 0\.05 s"):
        rollouts.collect(300, first_seed=0, timeout_s=0.05)
    # The seats are free again.
    assert len(rollouts.collect(3, first_seed=0, store=False).returns) == 3
    with pytest.raises(ActorError, match="at least 1"):
        rollouts.request([STATE], 0)
    with pytest.raises(ActorError, match="mode=async"):
        rollouts.start(first_seed=0, episodes_per_version=1, max_staleness=1)


def test_an_interrupt_leaves_no_task_behind(folder, monkeypatch, caplog):
    rollouts = rollouts_of(folder)
    seats, take = itertools.count(), rollouts._engine.seat

    def interrupted():
        if next(seats) == 5:
            raise KeyboardInterrupt  # as the handler of a signal does, in whatever task runs
        return take()

    monkeypatch.setattr(rollouts._engine, "seat", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rollouts.collect(20, first_seed=0, store=False)
    loop = rollouts._runner.get_loop()
    assert asyncio.all_tasks(loop), "else the test shows nothing"

    async def close():
        raise OSError("an environment does not close")

    monkeypatch.setattr(rollouts._player, "close", close)
    with pytest.raises(OSError, match="does not close"):
        rollouts.shutdown()
    assert not asyncio.all_tasks(loop)
    assert loop.is_closed()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("name", ["Mistral", "Gemma 2", "Granite", "Mamba", "Qwen3-Next"])
def test_a_model_that_the_sampler_would_get_wrong_is_refused(tmp_path: Path, name: str) -> None:
    next(family for family in FAMILIES if family.name == name).model().save_pretrained(tmp_path)
    with pytest.raises(EngineStartError, match=r"mode=inline cannot sample from .*set mode=sync"):
        InlineModel(str(tmp_path))


@pytest.mark.parametrize("name", ["Llama 3", "Qwen3", "GPT-2", "Phi-2"])
def test_models_without_such_parts_are_sampled(tmp_path: Path, name: str) -> None:
    next(family for family in FAMILIES if family.name == name).model().save_pretrained(tmp_path)
    assert InlineModel(str(tmp_path)).vocabulary == 96
