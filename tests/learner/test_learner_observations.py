"""The critic's auxiliary loss: its backbone predicts observation tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_cases import episodes, make_algorithm
from learner_cases import VOCABULARY, llama, make_episode
from table_cases import PAD, PAIRS, TOKENS, give_fresh, gradients_of, pair, table_algorithm
from test_learner_fresh_critic import _data
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from learner.config import LearnerConfig, LoraConfig
from learner.critic_config import BackboneConfig, CriticConfig
from learner.errors import LearnerError
from learner.models.critic import build_critic, check_backbone
from learner.passes.rows import Row

pytestmark = pytest.mark.usefixtures("one_rank")

TABLES = {"warmup_cycles": 0, "max_grad_norm": 1e6}


def _rows() -> list[Row]:
    """Return a sample of the first of three turns, whose pass ends at the second state, and one of a whole episode."""
    long = make_episode("long", [4, 5, 1, 2, 6, 3, 3, 4, 1, 5, 6], [2, 5, 8], [4, 7, 9], [0.0, 0.0, 0.0])
    short = make_episode("short", [5, 1, 3, 4], [1], [3], [0.0])
    rows = [Row(long, np.array([0], dtype=np.int32)), Row(short, np.array([0], dtype=np.int32))]
    return [give_fresh(row, [[[1]]]) for row in rows]


PREDICTED = [(PAD, 4, 5), (1, 2, 6), (1, 3, 4)]
"""The observation tokens in the passes of `_rows`, each after the two tokens before it."""


def _critic_step(algorithm: Any, micro_batches: list[list[Row]]) -> Any:
    samples = sum(len(row.turns) for rows in micro_batches for row in rows)
    return algorithm.step(algorithm.phases(0)[0], micro_batches, samples, 1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("archer", {}), ("archer", {"value": "fresh", "unit": "episode"}), ("archer_offline", {}), ("chai", {})],
    ids=["archer", "archer, V from fresh actions", "archer_offline", "chai"],
)
def test_a_uniform_head_loses_the_logarithm_of_the_vocabulary(name: Any, settings: dict[str, Any]) -> None:
    rows = _data(2) if "value" in settings else _rows()
    found = {}
    for weight in (0.0, 0.5):
        algorithm = table_algorithm(name, critic={**TABLES, **settings, "observation_weight": weight})
        found[weight] = _critic_step(algorithm, [rows[::2], rows[1::2]]).metrics
    assert found[0.5].pop("critic/observation_nll") == pytest.approx(math.log(TOKENS))
    assert found[0.0].keys() == found[0.5].keys()
    # The tables of Q and V have parameters of their own, so the other losses do not change.
    assert found[0.5]["critic/q_loss"] == pytest.approx(found[0.0]["critic/q_loss"])


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_gradient_is_that_of_the_mean_over_the_observation_tokens_of_the_batch(pieces: int) -> None:
    rows = _rows()
    algorithm = table_algorithm("archer", critic={**TABLES, "observation_weight": 0.5})
    table = algorithm.engines.critic.module.observation_head.weight
    torch.manual_seed(3)
    table.data.normal_()
    theta = table.detach().clone().requires_grad_()
    nll = [-(theta[:, pair(a, b)] + theta[:, PAIRS + b]).log_softmax(0)[c] for a, b, c in PREDICTED]
    mean = torch.stack(nll).mean()
    (expected,) = torch.autograd.grad(0.5 * mean, theta)
    with gradients_of(algorithm.engines.critic) as gradients:
        result = _critic_step(algorithm, [rows] if pieces == 1 else [rows[:1], rows[1:]])
    torch.testing.assert_close(gradients["observation_head.weight"], expected, atol=1e-6, rtol=1e-5)
    assert result.metrics["critic/observation_nll"] == pytest.approx(mean.item())


def test_backbones_apart_both_predict_observations() -> None:
    """Without rewards and with heads of zeros, no gradient of the backbones comes from Q and V."""
    found = {}
    for backbones in ("shared", "apart"):
        critic = {"observation_weight": 1.0, "backbones": backbones, "max_grad_norm": 1e6, "gamma": 1e-9}
        algorithm: Any = make_algorithm("archer_offline", critic=critic)
        module = algorithm.engines.critic.module
        for head in (*module.q, *module.v):
            for parameter in head.parameters():
                parameter.data.zero_()
        rows = episodes(0, 4)
        with gradients_of(algorithm.engines.critic) as gradients:
            algorithm.step(algorithm.phases(0)[0], [rows[:2], rows[2:]], 24, 1)
        found[backbones] = gradients
    for name, gradient in found["shared"].items():
        if name.startswith("backbone.") and "embed" not in name:
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(found["apart"][name], gradient)
            assert found["apart"][f"v_{name}"].abs().max() > 0, name


def test_the_backbones_learn_to_predict_observations() -> None:
    critic = {"observation_weight": 1.0, "lr": 1e-2, "max_grad_norm": 10.0}
    algorithm: Any = make_algorithm("archer_offline", critic=critic)
    rows = episodes(0, 4)
    losses = [_critic_step(algorithm, [rows]).metrics["critic/observation_nll"] for _ in range(30)]
    assert losses[0] == pytest.approx(math.log(VOCABULARY), abs=0.5)
    assert losses[-1] < 0.5 * losses[0]


def _policy(folder: Path, *, tied: bool) -> PreTrainedTokenizerFast:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(tie_word_embeddings=tied)).save_pretrained(folder)
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")), pad_token="w0", eos_token="w1"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["whole", "adapters"])
def test_the_head_starts_as_the_policys_and_is_trained_apart(
    tmp_path: Path, tied: bool, lora: LoraConfig | None
) -> None:
    tokenizer = _policy(tmp_path, tied=tied)
    config = LearnerConfig(critic=CriticConfig(observation_weight=1.0), lora=lora)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path)
    critic, _ = build_critic(config, tmp_path, tokenizer, None if lora is None else policy.base_model)
    copied: Any = critic.observation_head
    head = copied.model.lm_head
    torch.testing.assert_close(head.weight, policy.get_output_embeddings().weight)
    assert head.weight.requires_grad
    assert all(head.weight is not parameter for parameter in critic.backbone.parameters())


def test_a_new_backbone_has_a_random_head_and_no_weight_means_no_head(tmp_path: Path) -> None:
    tokenizer = _policy(tmp_path, tied=False)
    small = BackboneConfig(hidden_size=16, layers=1, heads=2, intermediate_size=32)
    critic, _ = build_critic(
        LearnerConfig(critic=CriticConfig(build=small, observation_weight=1.0)), tmp_path, tokenizer
    )
    head: Any = critic.observation_head
    assert head.weight.shape == (VOCABULARY, 16)
    without, _ = build_critic(LearnerConfig(critic=CriticConfig(build=small)), tmp_path, tokenizer)
    assert critic.state_dict().keys() - without.state_dict().keys() == {"observation_head.weight"}


def test_an_encoder_that_would_predict_what_it_sees_is_refused(tmp_path: Path) -> None:
    tokenizer = _policy(tmp_path / "policy", tied=False)
    roberta = RobertaConfig(vocab_size=68, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    RobertaModel(roberta).save_pretrained(tmp_path / "critic")
    tokenizer.save_pretrained(tmp_path / "critic")
    config = CriticConfig(backbone=str(tmp_path / "critic"), observation_weight=0.5)
    with pytest.raises(LearnerError, match=r"observation_weight` is 0.5.*is an encoder.*set observation_weight=0"):
        check_backbone(config, tokenizer)


def test_a_batch_without_observations_is_refused() -> None:
    algorithm = table_algorithm("archer_offline", critic={**TABLES, "observation_weight": 0.5})
    episode = make_episode("bare", [4, 1, 2], [1], [3], [0.0])
    with pytest.raises(LearnerError, match=r"observation_weight.*no token outside of their actions"):
        _critic_step(algorithm, [[Row(episode, np.array([0], dtype=np.int32))]])
