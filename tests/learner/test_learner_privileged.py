"""The loss that predicts what the environment hides, and Q that reads the state beside the action."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_cases import RECIPE, make_algorithm
from learner_cases import change, llama, make_episode, make_row
from table_cases import PAIRS, TOKENS, give_fresh, gradients_of, pair, table_algorithm
from test_learner_fresh_critic import EXACT_BEHAVIOUR, _data
from test_learner_tabular import GAMMA, STATES, _require
from transformers import AutoModel

from learner.algorithms.data_critic import warmup_rate
from learner.algorithms.utterance_critic import WARMUP, critic_phases
from learner.critic_config import CriticConfig
from learner.errors import LearnerError
from learner.models.critic import Critic
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row
from learner.passes.separate_encoder import SeparateEncoder

pytestmark = pytest.mark.usefixtures("one_rank")

TABLES = {"warmup_cycles": 0, "max_grad_norm": 1e6}


def _rows() -> list[Row]:
    """Return two turns of an episode that hides "27", one of an episode that hides "3", and one that hides nothing."""
    long = make_episode("long", [4, 5, 1, 2, 6, 3, 3, 4, 1, 5, 6], [2, 5, 8], [4, 7, 9], [0.0, 0.0, 0.0])
    others = [make_episode(name, [5, first, 3, 4], [2], [3], [0.0]) for name, first in (("a", 1), ("b", 2))]
    rows = [
        give_fresh(Row(episode, np.array(turns, dtype=np.int32)), [[[1]]] * len(turns))
        for episode, turns in zip((long, *others), ([0, 2], [0], [0]), strict=True)
    ]
    for row, text in zip(rows, ("27", "3", ""), strict=True):
        change(row, privileged=text)
    return rows


PREDICTED = [((4, 5), "27"), ((3, 4), "27"), ((5, 1), "3")]
"""The last two tokens of each state of `_rows`, and the tokens of what its episode hides."""


def _mean_loss(theta: torch.Tensor) -> torch.Tensor:
    """Return the mean over the states of the mean over the tokens, by the table `theta` [tokens, features]."""
    losses = []
    for (a, b), text in PREDICTED:
        logprob = (theta[:, pair(a, b)] + theta[:, PAIRS + b]).log_softmax(0)
        losses.append(-torch.stack([logprob[int(token)] for token in text]).mean())
    return torch.stack(losses).mean()


def test_a_text_is_predicted_at_the_last_token_of_each_state() -> None:
    layout = PackedEncoder(0, lambda text: [int(token) for token in text]).encode(_rows(), ("action", "privileged"))
    found = layout.predictions["privileged"]
    assert found.token.tolist() == [2, 7, 2, 7, 3]
    assert found.sample.tolist() == [0, 0, 1, 1, 2]
    assert layout.input_ids[found.row, found.column].tolist() == [5, 5, 4, 4, 1]


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_critics_gradient_is_that_of_the_mean_over_states(pieces: int) -> None:
    rows = _rows()
    algorithm = table_algorithm("archer", critic={**TABLES, "privileged_weight": 0.5})
    table = algorithm.engines.critic.module.privileged_head.weight
    torch.manual_seed(3)
    table.data.normal_()
    theta = table.detach().clone().requires_grad_()
    mean = _mean_loss(theta)
    (expected,) = torch.autograd.grad(0.5 * mean, theta)
    with gradients_of(algorithm.engines.critic) as gradients:
        result = algorithm.step(algorithm.phases(0)[0], [rows] if pieces == 1 else [rows[:1], rows[1:]], 4, 1)
    torch.testing.assert_close(gradients["privileged_head.weight"], expected, atol=1e-6, rtol=1e-5)
    assert result.metrics["critic/privileged_nll"] == pytest.approx(mean.item())


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("observations", [0.0, 1.0])
def test_cloning_adds_the_mean_over_states_to_the_mean_over_action_tokens(pieces: int, observations: float) -> None:
    rows = _rows()
    settings = {"steps": 10, "observation_weight": observations}
    losses = {}
    for weight in (0.0, 0.5):
        cloning: Any = table_algorithm(
            "bc", clone={**settings, "privileged_weight": weight}, actor={"max_grad_norm": 1e6}
        )
        if weight:
            table = cloning.policy.module.privileged.weight
            torch.manual_seed(3)
            table.data.normal_()
            theta = table.detach().clone().requires_grad_()
        with gradients_of(cloning.policy) as gradients:
            result = cloning.step(cloning.stage, [rows] if pieces == 1 else [rows[:1], rows[1:]], 4, 0)
        losses[weight] = result.metrics["clone/loss"]
    mean = _mean_loss(theta)
    # The samples have 2 + 1 + 1 + 1 action tokens, in four samples.
    (expected,) = torch.autograd.grad(5 / 4 * 0.5 * mean, theta)
    torch.testing.assert_close(gradients["privileged.weight"], expected, atol=1e-6, rtol=1e-5)
    assert result.metrics["clone/privileged_nll"] == pytest.approx(mean.item())
    assert losses[0.5] - losses[0.0] == pytest.approx(5 / 4 * 0.5 * mean.item())


def test_held_out_texts_are_measured() -> None:
    cloning: Any = table_algorithm("bc", clone={"steps": 10, "privileged_weight": 2.0})
    cloning.policy.module.privileged.weight.data.zero_()
    cloning.measure_on([_rows()], lambda *_: None)
    found = cloning.held_out_losses()
    assert found["clone/held_out_privileged_loss"] == pytest.approx(math.log(TOKENS))
    assert found["clone/held_out_loss"] == pytest.approx(
        found["clone/held_out_action_loss"] + 2.0 * found["clone/held_out_privileged_loss"]
    )


def test_an_environment_that_hides_nothing_is_named() -> None:
    rows = _rows()
    for row in rows:
        change(row, privileged="")
    algorithm = table_algorithm("archer", critic={**TABLES, "privileged_weight": 0.5})
    with pytest.raises(LearnerError, match=r"privileged_weight.*no episode of the first batch has such a text"):
        algorithm.step(algorithm.phases(0)[0], [rows], 4, 1)
    # Later, imported episodes without a text may fill a batch.
    algorithm.step(algorithm.phases(0)[0], [_rows()], 4, 1)
    result = algorithm.step(algorithm.phases(0)[0], [rows], 4, 1)
    assert result.metrics["critic/privileged_nll"] == 0.0


@pytest.mark.parametrize("q_at", ["action", "state_and_action"])
def test_packed_values_equal_separate_values(q_at: Any) -> None:
    torch.manual_seed(0)
    rows = [make_row(seed) for seed in range(4)]
    critic = Critic(AutoModel.from_config(llama()), 32, q_at=q_at).eval()
    encoders = PackedEncoder(0), SeparateEncoder(0, with_states=q_at == "state_and_action")
    with torch.no_grad():
        packed, separate = (critic(e.encode(rows, ("action", "fresh"), 1), q=("action", "fresh")) for e in encoders)
    assert critic.q[0][0].in_features == (64 if q_at == "state_and_action" else 32)
    for name in packed:
        torch.testing.assert_close(packed[name], separate[name], atol=1e-5, rtol=0)


def test_q_that_reads_the_state_depends_on_it_directly() -> None:
    """With heads that read only the first half of their input, Q is that of the state, for each of its actions."""
    torch.manual_seed(0)
    row = make_row(1, all_turns=True)
    critic = Critic(AutoModel.from_config(llama()), 16, q_at="state_and_action").eval()
    for head in critic.q:
        head[0].weight.data[:, 32:] = 0.0
    layout = PackedEncoder(0).encode([row], ("state", "action", "fresh"), 1)
    with torch.no_grad():
        q = critic(layout, q=("action", "fresh"))
        hidden = critic.backbone(input_ids=torch.from_numpy(row.episode.state(1)).long()[None]).last_hidden_state
        alone = [head(torch.cat((hidden[:, -1], torch.zeros(1, 32)), -1)).squeeze() for head in critic.q]
    torch.testing.assert_close(q["q_action"][:, 1], torch.stack(alone), atol=1e-5, rtol=0)
    torch.testing.assert_close(q["q_fresh"][:, 1, 0], torch.stack(alone), atol=1e-5, rtol=0)


def _warmed_up(rows: list[Row], steps: int = 260, **critic: Any) -> Any:
    settings = {"gamma": GAMMA, "tau": 0.5, "value": "fresh", "unit": "episode", "lr": 1e-6, **TABLES, **critic}
    algorithm = table_algorithm(
        "archer", critic={**settings, "warmup_steps": steps, "warmup_targets": "data", "warmup_lr": 0.15}
    )
    phase = algorithm.phases(0)[0]
    assert (phase.name, phase.steps, phase.fresh) == (WARMUP, steps, 0)
    for _ in range(steps):
        result = algorithm.step(phase, [rows[::2], rows[1::2]], sum(len(row.turns) for row in rows), 1)
    assert result.metrics.keys() >= {"warmup/q_loss", "warmup/v_loss", "warmup/target"}
    return algorithm


def test_the_warm_up_on_data_finds_the_values_of_the_policy_that_wrote_it() -> None:
    rows = _data()
    for row in rows:
        row.fresh = None  # the warm-up needs none
    q = EXACT_BEHAVIOUR
    v = {s: sum(q[s, a] for state, a in q if state == s) / 2 for s in STATES}
    _require(_warmed_up(rows).engines, q, v)


def test_the_rate_of_the_warm_up_falls_to_that_of_later_steps() -> None:
    config = CriticConfig(value="fresh", unit="episode", warmup_steps=4, warmup_lr=1e-2, lr=2e-3)
    assert [warmup_rate(config, step) for step in range(6)] == pytest.approx([1e-2, 8e-3, 6e-3, 4e-3, 2e-3, 2e-3])
    algorithm = _warmed_up(_data()[:4], steps=3)
    assert algorithm.engines.critic.ds.optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)
    assert [phase.name for phase in algorithm.phases(0)] == [WARMUP, "critic", "actor"]
    assert [phase.name for phase in algorithm.phases(1)] == ["critic", "actor"]


def test_a_critic_with_a_warm_up_on_data_goes_on_with_fresh_actions() -> None:
    """The V heads have no loss then, and stay as they are."""
    changes = {**RECIPE["critic"], "warmup_steps": 1, "warmup_targets": "data", "q_at": "state_and_action"}
    algorithm: Any = make_algorithm("archer", critic=changes, actor=RECIPE["actor"])
    rows = [make_row(seed, all_turns=True) for seed in range(4)]
    heads = [parameter.detach().clone() for parameter in algorithm.engines.critic.module.v.parameters()]
    phase = algorithm.phases(1)[0]
    algorithm.step(phase, [rows[:2], rows[2:]], sum(len(row.turns) for row in rows), 1)
    for before, after in zip(heads, algorithm.engines.critic.module.v.parameters(), strict=True):
        torch.testing.assert_close(before, after)


def test_a_warm_up_on_data_is_one_of_values_from_fresh_actions() -> None:
    """A critic with V heads, or a run without a warm-up, takes the settings of a preset that has one."""
    without = CriticConfig(warmup_targets="data", warmup_steps=0, value="fresh", unit="episode")
    assert not without.has_v_heads
    assert [phase.name for phase in critic_phases(without, 0, fresh=2)] == ["critic"]
    heads = CriticConfig(warmup_targets="data", warmup_steps=10)
    (phase,) = critic_phases(heads, 0, fresh=2)
    assert (phase.name, phase.extra) == ("critic", 10)
