"""Critic backbones, and the backbones that are refused before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_cases import VOCABULARY, llama, make_row
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from learner.config import LearnerConfig
from learner.critic_config import BackboneConfig, CriticConfig
from learner.errors import LearnerError
from learner.models.critic import build_critic
from learner.models.pretrained import without_dropout
from learner.models.vocabulary import translate_vocabulary

PARTS = ("state", "action", "next_state", "fresh")


def _tokenizer(words: list[str], **special: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(words)}
    unknown = special.get("unk_token", words[0])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=unknown)), **special
    )


def _policy(folder: Path) -> PreTrainedTokenizerFast:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama()).save_pretrained(folder)
    tokenizer = _tokenizer([f"w{i}" for i in range(VOCABULARY)], pad_token="w0", eos_token="w1")
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_a_backbone_from_the_policy_starts_with_its_weights(tmp_path: Path) -> None:
    tokenizer = _policy(tmp_path)
    critic, encoder = build_critic(LearnerConfig(critic=CriticConfig(backbone="policy")), tmp_path, tokenizer)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(critic.backbone.embed_tokens.weight, policy.model.embed_tokens.weight)
    values = critic(encoder.encode([make_row(0)], PARTS, 1), q=("action", "fresh"), v=("state", "next_state"))
    assert values["q_fresh"].shape[0] == 2


def test_a_backbone_from_scratch_reads_the_policys_vocabulary(tmp_path: Path) -> None:
    tokenizer = _policy(tmp_path)
    config = CriticConfig(build=BackboneConfig(hidden_size=16, layers=1, heads=2, intermediate_size=32))
    critic, _ = build_critic(LearnerConfig(critic=config), tmp_path, tokenizer)
    assert critic.backbone.embed_tokens.weight.shape == (VOCABULARY, 16)


def test_an_encoder_backbone_reads_each_state_separately(tmp_path: Path) -> None:
    """RoBERTa has the policy's words with other ids, like GPT-2's; tokens after a state do not change its value."""
    tokenizer = _policy(tmp_path / "policy")
    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in reversed(range(VOCABULARY)))]
    roberta = RobertaModel(
        RobertaConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=130,
            pad_token_id=1,
        )
    )
    roberta.save_pretrained(tmp_path / "critic")
    _tokenizer(
        words, cls_token="<s>", pad_token="<pad>", sep_token="</s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "critic")
    config = CriticConfig(backbone=str(tmp_path / "critic"), max_tokens=16)
    critic, encoder = build_critic(LearnerConfig(critic=config), tmp_path / "policy", tokenizer)
    row, changed = make_row(5, all_turns=True), make_row(5, all_turns=True)
    changed.episode.tokens[row.episode.state_end(3) :] = 7
    layout = encoder.encode([row], PARTS, 1)
    assert layout.input_ids.shape[1] == 16, "longer states keep their last tokens"
    with torch.no_grad():
        one = critic(layout, v=("state",))["v_state"]
        other = critic(encoder.encode([changed], PARTS, 1), v=("state",))["v_state"]
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert (one[:, 4:] - other[:, 4:]).abs().max() > 1e-5


def test_ids_are_translated_by_the_text_of_each_piece() -> None:
    policy = _tokenizer(["a", "b", "<end>"], eos_token="<end>", pad_token="<end>")
    critic = _tokenizer(
        ["<s>", "<pad>", "</s>", "<unk>", "b", "a"], pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    assert translate_vocabulary(policy, critic, "critic").tolist() == [5, 4, 2]


def test_a_critic_with_an_unrelated_vocabulary_is_refused(tmp_path: Path) -> None:
    policy = _tokenizer([f"w{i}" for i in range(50)], pad_token="w0")
    critic = _tokenizer(["<unk>", *(f"v{i}" for i in range(50))], unk_token="<unk>", pad_token="<unk>")
    with pytest.raises(LearnerError, match=r"49 of the policy's 50 tokens.*have no counterpart"):
        translate_vocabulary(policy, critic, "critic")


@pytest.mark.parametrize(
    "config",
    [GPT2Config(), RobertaConfig(), BartConfig()],
    ids=lambda c: c.model_type,
)
def test_no_model_of_the_learner_has_dropout(config: PreTrainedConfig) -> None:
    """Each architecture has its own names for the rates; ones that are None stay as they are."""
    rates = {name: rate for name, rate in vars(without_dropout(config)).items() if "drop" in name}
    assert len(rates) > 2
    assert set(rates.values()) <= {0.0, None}


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_gamma_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        CriticConfig(gamma=value)
