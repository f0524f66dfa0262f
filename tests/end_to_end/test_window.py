"""A model with a sliding window shorter than its episodes, on the real stack; PPO trains it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_cases import ALGORITHMS, archer, assert_trained, write_config
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from archer.config.sections import TinyModelConfig
from archer.driver.model import build_tiny_model
from buffer.episodes.schema import Episode, batch_to_episodes
from buffer.log.write_ahead import read_episodes

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

WINDOW = 24


def test_engine_and_learner_agree_beyond_the_window(cluster_address: str, tmp_path: Path) -> None:
    """The log-probabilities that the engine stored are the model's own along the whole of every episode."""
    model = _mistral(tmp_path)
    config = write_config(
        tmp_path,
        algorithm="ppo",
        model={"build": None, "path": str(model)},
        demonstrations={"episodes": 0, "keep_in_replay": False},
        learner=ALGORITHMS | {"clone": {"steps": 0}},
        replay={"shards": 1},
    )
    with archer(tmp_path, "train", str(config), RAY_ADDRESS=cluster_address) as run:
        assert run.finish() == 0, run.output
    assert "passes of MistralForCausalLM: packed; largest gap to its own forward pass" in run.output

    # Without a clone, each cycle adds one to version 0.
    assert_trained(run.folder, "actor/value_loss", cycles=2, version=2)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["passes"]["policy"] == "packed"
    assert summary["passes"]["gap"] < 1e-4
    assert summary["proof_max_gap"] < 1e-4
    assert all(row["metrics"]["pass_gap"] == summary["passes"]["gap"] for row in run.rows("cycle"))

    episodes = [episode for batch in read_episodes(run.folder / "replay") for episode in batch_to_episodes(batch)]
    writers = {0: model, 1: run.folder / "checkpoints" / "cycle-00001" / "policy"}
    assert {int(version) for episode in episodes for version in episode.versions} == set(writers)
    assert min(len(episode.tokens) for episode in episodes) > 3 * WINDOW
    for version, path in writers.items():
        written = [episode for episode in episodes if episode.versions[0] == version]
        assert max(_gap(path, episode) for episode in written) < 1e-4


def _mistral(folder: Path) -> Path:
    """Return the folder of a Mistral with random weights, so large that what lies beyond the window would matter."""
    tiny = TinyModelConfig(vocab_size=300, hidden_size=32, layers=1, heads=1, intermediate_size=64)
    tokenizer = AutoTokenizer.from_pretrained(
        build_tiny_model(["Is it a dog?\nNo.\n"] * 4, folder / "tokenizer", tiny, seed=0)
    )
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=512,
        sliding_window=WINDOW,
        initializer_range=0.2,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    )
    torch.manual_seed(0)
    model = MistralForCausalLM(config).float()
    model.save_pretrained(folder / "mistral")
    tokenizer.save_pretrained(folder / "mistral")
    return folder / "mistral"


@torch.no_grad()
def _gap(path: Path, episode: Episode) -> float:
    """Return the largest difference between the stored log-probabilities and those of the model at `path`."""
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32)
    assert model.config.sliding_window == WINDOW
    ids = torch.from_numpy(episode.tokens.astype(np.int64))
    logprobs = model(input_ids=ids[None]).logits[0].log_softmax(-1)[:-1].gather(-1, ids[1:, None])[:, 0].numpy()
    spans = zip(episode.action_start, episode.action_end, strict=True)
    own = np.concatenate([logprobs[start - 1 : end - 1] for start, end in spans])
    return float(np.abs(own - episode.logprobs).max())
