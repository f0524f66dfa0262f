"""`archer check` and the checks of a model before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from typer.testing import CliRunner

from archer.cli import app
from archer.commands.check import check
from archer.config.loading import config_from_tree
from archer.config.sections import ModelConfig, TinyModelConfig
from archer.driver.model import build_tiny_model, resolve_model
from archer.driver.passes import prove_passes
from archer.errors import ConfigError, RunError
from bench.families import FAMILIES
from learner.config import LearnerConfig
from learner.critic_config import BackboneConfig, CriticConfig
from learner.models.critic import build_critic
from learner.models.vocabulary import translate_text, translate_vocabulary
from learner.passes import masks

TINY = TinyModelConfig(vocab_size=300, hidden_size=32, layers=1, heads=1, intermediate_size=64)
TOKENS = 300


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build_tiny_model(["Is it a dog?\nNo.\n"] * 4, tmp_path_factory.mktemp("tiny") / "model", TINY, seed=0)
    return AutoTokenizer.from_pretrained(folder)


def _family(folder: Path, name: str, tokenizer: Any) -> Path:
    """Write the tiny model of a family, with a tokenizer, into `folder`."""
    family = next(family for family in FAMILIES if family.name == name)
    config = family.config()
    config.vocab_size = len(tokenizer)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _llama(folder: Path, vocabulary: int, tokenizer: Any) -> Path:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=vocabulary, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_check_prints_a_table_for_a_model_that_is_right(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(str(_family(tmp_path / "good", "Mistral", tokenizer)))
    shown = " ".join(capsys.readouterr().out.split())
    assert "files, tokenizer, embedding ok fit together" in shown
    assert "passes of MistralForCausalLM: packed; largest gap" in shown


def test_check_says_why_sequences_are_separate(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(str(_family(tmp_path / "mamba", "Mamba", tokenizer)))
    shown = " ".join(capsys.readouterr().out.split())
    assert "separate sequences, because its linear_attention layers carry a state from token to token" in shown


def test_check_of_a_model_that_differs_fails_and_names_the_layer(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _family(tmp_path / "wrong", "Mistral", tokenizer)
    monkeypatch.setattr(masks, "_local", lambda *_: None)
    with pytest.raises(RunError, match=r"check of passes.*packed passes: layer 0 \(MistralDecoderLayer\) differs"):
        check(str(folder), ["learner.passes=packed"])
    assert "passes failed" in " ".join(capsys.readouterr().out.split())


def test_check_of_a_short_embedding_fails_with_both_numbers(tmp_path: Path, tokenizer: Any) -> None:
    size = len(tokenizer)
    folder = _llama(tmp_path / "short", size - 7, tokenizer)
    with pytest.raises(RunError, match=rf"tokenizer has {size} tokens and its embedding only {size - 7} rows"):
        check(str(folder))


def test_check_of_a_preset_builds_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    check("demo", ["demonstrations.episodes=20", "model.build.layers=1", "model.build.architecture=qwen3"])
    assert "passes of Qwen3ForCausalLM: packed" in " ".join(capsys.readouterr().out.split())


def test_a_missing_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder; give a folder with a Hugging Face model"):
        check(str(tmp_path / "none"))


def test_check_is_a_command() -> None:
    assert (
        "Prove that the learner computes what a model computes" in CliRunner().invoke(app, ["check", "--help"]).output
    )


def test_a_model_with_code_of_its_own_is_refused_without_a_question(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a question to nobody")

    monkeypatch.setattr("builtins.input", asked)
    tokenizer.save_pretrained(tmp_path)
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(
        ConfigError, match=r"needs Python code of its own .*trust_remote_code=True and ArCHer never does"
    ):
        resolve_model(ModelConfig(path=str(tmp_path)))


def test_code_for_an_architecture_that_transformers_has_is_not_needed(tmp_path: Path, tokenizer: Any) -> None:
    folder = _llama(tmp_path, len(tokenizer), tokenizer)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"auto_map": {"AutoConfig": "own.Config"}}))
    assert resolve_model(ModelConfig(path=str(folder)))[0] == str(folder)


def test_a_padded_embedding_works_with_every_critic(tmp_path: Path, tokenizer: Any) -> None:
    padded = len(tokenizer) + 20
    folder = _llama(tmp_path, padded, tokenizer)
    assert resolve_model(ModelConfig(path=str(folder)))[0] == str(folder)
    small = BackboneConfig(hidden_size=16, layers=1, heads=2, intermediate_size=32)
    for critic in (CriticConfig(build=small, observation_weight=1.0), CriticConfig(observation_weight=1.0)):
        made, _ = build_critic(LearnerConfig(critic=critic), folder, tokenizer)
        assert made.backbone.get_input_embeddings().weight.shape[0] == padded
        assert made.observation_head is not None
        assert made.observation_head(torch.zeros(1, 16 if critic.build else 32)).shape[-1] == padded


def test_an_encoder_reads_a_padded_id_as_unknown(tokenizer: Any) -> None:
    padded = np.array([5, len(tokenizer) + 3], dtype=np.int32)
    table = translate_vocabulary(tokenizer, tokenizer, "critic", size=len(tokenizer) + 8)
    assert table.shape == (len(tokenizer) + 8,)
    assert table[padded[0]] == 5
    assert translate_text(tokenizer, tokenizer)(padded).size


def test_the_critics_backbone_is_proved_too(tmp_path: Path, tokenizer: Any) -> None:
    policy = _llama(tmp_path / "policy", len(tokenizer), tokenizer)
    critic = _family(tmp_path / "critic", "Qwen3.5", tokenizer)
    tree = {
        "model": {"path": str(policy)},
        "env": {"id": "key_door"},
        "learner": {"clone": {"steps": 0}, "critic": {"backbone": str(critic)}},
    }
    config = config_from_tree(tree, source="test")
    found = prove_passes(config, str(policy))
    assert {role: proof.passes for role, proof in found.proofs.items()} == {"policy": "packed", "critic": "separate"}
    settled = found.settle(config)
    assert (settled.learner.passes, settled.learner.critic.passes) == ("packed", "separate")
    assert config.learner.passes == "auto"
