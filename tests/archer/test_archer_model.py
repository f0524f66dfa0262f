"""The model that a run builds, and the checks of an existing model."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from archer.config.sections import ModelConfig, TinyModelConfig
from archer.driver.model import build_tiny_model, check_critic, resolve_model
from archer.errors import ConfigError
from learner.critic_config import CriticConfig
from learner.models.vocabulary import pad_token_id

TEXTS = [
    "Questions:\nIs it a vehicle? Yes.\nIs it a football? No.\n",
    "Questions:\nDoes it have a keyboard? Invalid question.\nIs it a banana? Yes.\n",
] * 20
SMALL = TinyModelConfig(hidden_size=32, layers=2, heads=1, intermediate_size=64, max_positions=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(TEXTS, tmp_path_factory.mktemp("tiny") / "model", SMALL, seed=3)


@pytest.mark.parametrize(
    "text", [TEXTS[0], "", "\n\n \n", "  two  spaces", "ünïcode 日本語 🙂\t\x00end", "words never seen before"]
)
def test_text_round_trips_through_its_tokens(folder: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_newline_is_one_token_in_every_position(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (newline,) = tokenizer.encode("\n")
    for text in ("a\n", "?\n", " \n", "\n\n\n", "x \n y"):
        tokens = tokenizer.encode(text)
        assert tokens.count(newline) == text.count("\n")
        assert [token for token in tokens if "\n" in tokenizer.decode([token])] == [newline] * text.count("\n")


def test_frequent_words_are_single_tokens_with_their_space(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for word in (" vehicle", " football", " banana", " keyboard", "Is", " it", " a", "?", " Yes", " question"):
        assert len(tokenizer.encode(word)) == 1, word


def test_tokenizer_gives_no_token_types_and_pads(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert set(tokenizer(["a", "a b c"], padding=True)) == {"input_ids", "attention_mask"}
    assert {tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token} == {"<pad>", "<bos>", "<eos>"}
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_model_loads_and_answers_over_the_whole_vocabulary(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    logits = model(torch.tensor([tokenizer.encode("Is it")])).logits
    assert logits.shape[-1] == len(tokenizer)
    assert torch.isfinite(logits).all()
    assert model.dtype == torch.float32
    assert (model.generation_config.top_k, model.generation_config.top_p) == (0, 1.0)
    assert model.config.max_position_embeddings == 128
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("tied", [False, True])
def test_default_is_about_a_million_parameters(tmp_path: Path, tied: bool) -> None:
    path = build_tiny_model(TEXTS, tmp_path / "m", TinyModelConfig(tie_embeddings=tied), seed=0)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert 0.7e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.3e6
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied


def test_same_seed_gives_the_same_bytes_and_leaves_the_stream_alone(folder: Path, tmp_path: Path) -> None:
    def digest(path: Path) -> list[str]:
        return [hashlib.sha256((path / n).read_bytes()).hexdigest() for n in ("model.safetensors", "tokenizer.json")]

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    again = build_tiny_model(TEXTS, tmp_path / "again", SMALL, seed=3)
    assert torch.equal(torch.rand(1), expected)
    assert digest(again) == digest(folder)
    other = build_tiny_model(TEXTS, tmp_path / "other", SMALL, seed=4)
    assert digest(other)[0] != digest(folder)[0]


def test_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"demonstrations\.episodes"):
        build_tiny_model([], tmp_path / "m", SMALL, seed=0)
    assert not (tmp_path / "m").exists()


def test_existing_model_is_checked(folder: Path, tmp_path: Path) -> None:
    model, window = resolve_model(ModelConfig(path=str(folder)))
    assert (model, window) == (str(folder), 128)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve_model(ModelConfig(path=str(tmp_path / "empty")))


def test_broken_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"`model\.path`.*cannot be loaded"):
        resolve_model(ModelConfig(path=str(broken)))


@pytest.mark.parametrize(("special", "pad"), [({"eos_token": "<eos>"}, 2), ({}, None)])
def test_end_token_replaces_a_missing_pad_token(
    folder: Path, tmp_path: Path, special: dict[str, str], pad: int | None
) -> None:
    path = tmp_path / "nopad"
    shutil.copytree(folder, path)
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special).save_pretrained(path)
    if pad is not None:
        assert resolve_model(ModelConfig(path=str(path)))[0] == str(path)
        assert pad_token_id(AutoTokenizer.from_pretrained(path)) == pad
    else:
        with pytest.raises(ConfigError, match="neither a pad nor an end-of-sequence token"):
            resolve_model(ModelConfig(path=str(path)))


def test_critic_that_cannot_read_the_policy_is_refused_before_the_start(folder: Path, tmp_path: Path) -> None:
    other = build_tiny_model(["quite another text, again and again\n"] * 9, tmp_path / "other", SMALL, seed=0)
    with pytest.raises(ConfigError, match=r"another vocabulary than the policy.*backbone=policy"):
        check_critic(CriticConfig(backbone=str(other)), str(folder))
    with pytest.raises(ConfigError, match=r"`learner\.critic\.backbone` .*nowhere.* can.* be loaded"):
        check_critic(CriticConfig(backbone=str(tmp_path / "nowhere")), str(folder))
    for backbone in ("policy", str(folder)):
        check_critic(CriticConfig(backbone=backbone), str(folder))
