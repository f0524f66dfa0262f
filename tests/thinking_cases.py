"""A tiny Qwen3 that thinks, and checks of the episodes that it played."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from actor_cases import byte_tokenizer
from chat_templates import R1
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from buffer.archive import read_archive
from buffer.episodes.schema import Episode, batch_to_episodes
from learner.models.policy import Policy
from learner.models.pretrained import load_causal_model
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row

CLOCK = "{{- strftime_now('%H:%M:%S.%f') + '\\n' }}" + R1
"""Begins each conversation with the time, opens a thought in the generation prompt, and drops earlier thoughts."""


def thinking_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Return the byte tokenizer with the markers of thoughts as tokens, as Qwen3 has them."""
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def save_thinking_model(folder: Path, template: str = CLOCK) -> Path:
    """Save a random Qwen3 of two layers; one token in about forty that it writes ends a thought or an action."""
    tokenizer = thinking_tokenizer(template)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=768,
        initializer_range=0.02,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        # The hidden state has one coordinate of a known sign, which favours the two tokens.
        model.model.embed_tokens.weight[:, 0] = 2.0
        for token in ("</think>", "<|im_end|>"):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token), 0] = 0.2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def played(folder: Path, version: int) -> list[Episode]:
    """Return the episodes in a run's checkpoint of cycle 2 that one policy version wrote."""
    batches = read_archive(folder / "checkpoints" / "cycle-00002")
    found = [episode for batch in batches for episode in batch_to_episodes(batch)]
    return [episode for episode in found if set(episode.versions.tolist()) == {version}]


def check_logprobs(policy: Path, episodes: Sequence[Episode]) -> None:
    """Compare stored log-probabilities with the learner's packed pass, and with a plain pass of each turn alone."""
    model = load_causal_model(str(policy), "float32")
    rows = [Row(episode, np.arange(episode.turns, dtype=np.int32)) for episode in episodes]
    layout = PackedEncoder(0).encode(rows, ("action",), 1)
    stored = np.concatenate([episode.logprobs for episode in episodes])
    with torch.no_grad():
        packed = Policy(model.eval(), temperature=1.0)(layout, layout.predictions["action"]).numpy()
    np.testing.assert_allclose(packed, stored, atol=1e-4)
    plain = Qwen3ForCausalLM.from_pretrained(policy, dtype=torch.float32, attn_implementation="eager").eval()
    alone = []
    for episode in episodes:
        for turn in range(episode.turns):
            action = episode.tokens[episode.action_start[turn] : episode.action_end[turn]]
            ids = torch.from_numpy(np.concatenate((episode.state(turn), action)).astype(np.int64))[None]
            with torch.no_grad():
                logprobs = plain(ids).logits.log_softmax(-1)[0, :-1]
            alone.append(logprobs.gather(-1, ids[0, 1:, None])[-len(action) :, 0].numpy())
    np.testing.assert_allclose(np.concatenate(alone), stored, atol=1e-4)
