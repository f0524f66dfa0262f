"""Packed passes agree with separate passes, and each part is read at the right position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learner_cases import change, flat_actions, gpt2, llama, make_row
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig

from learner.models.critic import Critic
from learner.models.policy import Policy, sequence_logprobs
from learner.models.pretrained import is_causal
from learner.passes.attention import TREE
from learner.passes.layout import Encoder
from learner.passes.masks import Tree, tree_mask
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, fresh_shares
from learner.passes.separate_encoder import SeparateEncoder

PARTS = ("state", "action", "next_state", "next_states", "fresh")


@pytest.fixture(params=[(llama, "sdpa"), (llama, TREE), (gpt2, TREE)], ids=["llama-sdpa", "llama-tree", "gpt2-tree"])
def config(request: pytest.FixtureRequest) -> PretrainedConfig:
    torch.manual_seed(0)
    make, attends = request.param
    made = make()
    made._attn_implementation = attends
    return made


@pytest.mark.parametrize("horizon", [1, 3])
def test_packed_values_equal_separate_values(config: PretrainedConfig, horizon: int) -> None:
    rows = [make_row(seed) for seed in range(5)]
    critic = Critic(AutoModel.from_config(config), 32).eval()
    q, v = ("action", "fresh"), ("state", "next_state", "next_states")
    with torch.no_grad():
        packed = critic(PackedEncoder(0).encode(rows, PARTS, horizon), q=q, v=v)
        separate = critic(SeparateEncoder(0).encode(rows, PARTS, horizon), q=q, v=v)
    assert packed["q_fresh"].shape == (2, sum(len(row.turns) for row in rows), 2)
    torch.testing.assert_close(packed["v_next_states"][..., -1], packed["v_next_state"])
    for name in packed:
        torch.testing.assert_close(packed[name], separate[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("part", ["action", "fresh"])
def test_packed_logprobs_equal_those_of_separate_passes(config: PretrainedConfig, part: str) -> None:
    rows = [make_row(seed) for seed in range(5)]
    policy = Policy(AutoModelForCausalLM.from_config(config).eval(), temperature=0.7)
    layout = PackedEncoder(0).encode(rows, ("fresh", "action"), 1)
    with torch.no_grad():
        packed = policy(layout, layout.predictions[part])
    alone = [sequence_logprobs(policy, text)[-n:] for text, n in _actions_alone(rows, part)]
    np.testing.assert_allclose(packed.numpy(), np.concatenate(alone), atol=1e-5, rtol=0)


def _ragged() -> list[Row]:
    """Return rows of all turns with one to three fresh actions at each state; every other row bootstraps."""
    rows = [make_row(seed, all_turns=True, terminated=seed % 2 == 0) for seed in range(4)]
    rng = np.random.default_rng(0)
    for row in rows:
        row.bootstraps = not row.episode.terminated
        drawn = [[rng.integers(1, 64, rng.integers(1, 5)) for _ in range(rng.integers(1, 4))] for _ in row.states]
        row.fresh = flat_actions(drawn)
    return rows


def test_states_have_their_own_number_of_fresh_actions_and_one_may_follow_the_last_turn(
    config: PretrainedConfig,
) -> None:
    rows = _ragged()
    critic = Critic(AutoModel.from_config(config), 32).eval()
    policy = Policy(AutoModelForCausalLM.from_config(config).eval(), temperature=0.7)
    layout = PackedEncoder(0).encode(rows, ("fresh", "action"), 1)
    with torch.no_grad():
        packed = critic(layout, q=("fresh", "action"))
        separate = critic(SeparateEncoder(0).encode(rows, ("fresh", "action"), 1), q=("fresh", "action"))
        logprob = policy(layout, layout.predictions["fresh"])
    shares = fresh_shares(rows)
    assert packed["q_fresh"].shape == (2, *shares.shape) == (2, sum(len(row.states) for row in rows), 3)
    np.testing.assert_allclose(shares.sum(-1), 1.0, rtol=1e-6)
    assert set((shares > 0).sum(-1)) == {1, 2, 3}
    for name in packed:
        torch.testing.assert_close(packed[name], separate[name], atol=1e-5, rtol=0)
    states = [(row, number, int(turn)) for row in rows for number, turn in enumerate(row.states)]
    alone, owner = [], []
    for state, (row, number, turn) in enumerate(states):
        for index, action in enumerate(row.fresh_at(number)):
            text = np.concatenate((row.episode.tokens[: row.episode.state_end(turn)], action))
            alone.append(sequence_logprobs(policy, text)[-len(action) :])
            owner += [(state, index)] * len(action)
    np.testing.assert_allclose(logprob.numpy(), np.concatenate(alone), atol=1e-5, rtol=0)
    predictions = layout.predictions["fresh"]
    assert list(zip(predictions.sample.tolist(), predictions.action.tolist(), strict=True)) == owner


def _actions_alone(rows: list[Row], part: str) -> list[tuple[np.ndarray, int]]:
    """Return each action after its state, and the length of the action."""
    found = []
    for row in rows:
        for sample, turn in enumerate(row.turns):
            data = row.episode.tokens[row.episode.action_start[turn] : row.episode.action_end[turn]]
            for action in row.fresh_at(sample) if part == "fresh" else [data]:
                found.append(
                    (np.concatenate((row.episode.tokens[: row.episode.state_end(int(turn))], action)), len(action))
                )
    return found


def test_values_do_not_depend_on_later_turns_or_pads() -> None:
    """A state keeps its value if every later token changes and a longer row is added to the layout."""
    torch.manual_seed(0)
    critic = Critic(AutoModel.from_config(llama()), 32).eval()
    row, changed = make_row(1, fresh=0), make_row(1, fresh=0)
    row.turns = changed.turns = np.array([2], dtype=np.int32)
    end = row.episode.state_end(2)
    tokens = changed.episode.tokens.copy()
    tokens[end:] = (tokens[end:] + 7) % 60 + 1
    change(changed, tokens=tokens)
    encoder = PackedEncoder(0)
    with torch.no_grad():
        alone = critic(encoder.encode([row], PARTS[:3]), v=("state",), q=("action",))
        other = critic(
            encoder.encode([changed, make_row(9, turns=12, all_turns=True, fresh=0)], PARTS[:3]),
            v=("state",),
            q=("action",),
        )
    torch.testing.assert_close(alone["v_state"][:, 0], other["v_state"][:, 0], atol=1e-6, rtol=0)
    assert (alone["q_action"][:, 0] - other["q_action"][:, 0]).abs().max() > 1e-4, "Q must see the action"


def _numbered(first: int, turns: int) -> Row:
    """Return an episode of tokens `first`, `first` + 1, ...; fresh action k of a state ends in 1000 + 10 length + k."""
    row = make_row(turns, turns=turns, all_turns=True, fresh=0)
    change(row, tokens=np.arange(first, first + len(row.episode.tokens), dtype=np.int32))
    row.turns = row.turns[::-1].copy()  # not in the order of the episode
    lasts = [1000 + 10 * (first + int(row.episode.action_start[turn])) for turn in row.turns]
    row.fresh = flat_actions([[[2000, last + k][k:] for k in range(2)] for last in lasts])
    return row


@pytest.mark.parametrize(
    "encoder", [PackedEncoder(0), SeparateEncoder(0, with_states=True)], ids=["packed", "separate"]
)
def test_each_part_is_read_at_the_last_token_of_its_own_turn(encoder: Encoder) -> None:
    """Every token is unique, so a part that is read at a wrong position gives a wrong token."""
    rows, horizon = [_numbered(1, 3), _numbered(100, 7)], 2
    layout = encoder.encode(rows, PARTS, horizon)
    read = {part: layout.input_ids[where].tolist() for part, where in layout.points.items()}
    expected: dict[str, list[object]] = {part: [] for part in (*PARTS, "action_state", "fresh_state")}
    for row in rows:
        first, count = int(row.episode.tokens[0]), len(row.episode.reward)
        ends = [int(row.episode.action_start[t]) if t < count else len(row.episode.tokens) for t in range(count + 1)]
        for turn in map(int, row.turns):
            expected["state"].append(first + ends[turn] - 1)
            expected["action"].append(first + int(row.episode.action_end[turn]) - 1)
            path = [first + ends[min(turn + ahead, count)] - 1 for ahead in range(1, horizon + 1)]
            expected["next_states"].append(path)
            expected["next_state"].append(path[-1])
            expected["fresh"].append([1000 + 10 * (first + ends[turn]) + k for k in range(2)])
            expected["action_state"].append(first + ends[turn] - 1)
            expected["fresh_state"].append([first + ends[turn] - 1] * 2)
    assert read == expected


def test_each_token_of_an_action_is_predicted_at_the_token_before_it() -> None:
    """The predictions include the first token, which follows the state, and the stop token."""
    rows = [_numbered(1, 3), _numbered(100, 7)]
    layout = PackedEncoder(0).encode(rows, ("action", "fresh"), 1)
    action = layout.predictions["action"]
    assert (layout.input_ids[action.row, action.column] == action.token - 1).all()
    written = [
        row.episode.tokens[row.episode.action_start[t] : row.episode.action_end[t]] for row in rows for t in row.turns
    ]
    assert action.token.tolist() == np.concatenate(written).tolist()
    fresh = layout.predictions["fresh"]
    texts = [text for row in rows for sample in range(len(row.turns)) for text in row.fresh_at(sample)]
    assert fresh.token.tolist() == np.concatenate(texts).tolist()
    stands = layout.input_ids[fresh.row, fresh.column].tolist()
    states = [int(row.episode.tokens[row.episode.action_start[t] - 1]) for row in rows for t in row.turns]
    before = [
        [state, *text[:-1].tolist()]
        for state, *both in zip(states, texts[::2], texts[1::2], strict=True)
        for text in both
    ]
    assert stands == [token for text in before for token in text]


def test_tree_mask_by_hand() -> None:
    """A trunk of three tokens, a branch of two after its second token, and one pad."""
    mask = tree_mask(Tree(torch.tensor([[0, 0, 0, 1, 1, -1]]), torch.tensor([[1, 2, 3, 2, 2, 0]]), 3))
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 0, 1, 0, 0],
            [1, 1, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ]
    )
    assert mask[0, 0].equal(expected.bool())


def test_last_state_is_the_whole_episode() -> None:
    row = make_row(3, turns=2, all_turns=True)
    layout = PackedEncoder(0).encode([row], ("state", "next_state"), 1)
    assert layout.points["next_state"].column.tolist() == [row.episode.action_start[1] - 1, len(row.episode.tokens) - 1]
    assert layout.points["state"].column.tolist() == [row.episode.action_start[0] - 1, row.episode.action_start[1] - 1]


def test_is_causal_distinguishes_causal_models_from_encoders() -> None:
    from transformers import RobertaConfig

    assert is_causal(llama())
    assert is_causal(gpt2())
    assert not is_causal(RobertaConfig())
