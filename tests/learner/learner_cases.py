"""Small models, rows and ranks that the learner's tests share."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.passes.rows import Row

VOCABULARY = 64


def llama(**changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "attn_implementation": "sdpa",
        "pad_token_id": 0,
    }
    return LlamaConfig(**(settings | changes))


def gpt2() -> PretrainedConfig:
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        attn_implementation="sdpa",
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )


def make_row(seed: int, *, turns: int = 6, fresh: int = 2, all_turns: bool = False, terminated: bool = True) -> Row:
    """Return an episode of random tokens and rewards, with random turns and random fresh actions."""
    rng = np.random.default_rng(seed)
    tokens = list(rng.integers(1, VOCABULARY, 3))
    start, end = [], []
    for _ in range(turns):
        start.append(len(tokens))
        tokens += list(rng.integers(1, VOCABULARY, rng.integers(1, 5)))
        end.append(len(tokens))
        tokens += list(rng.integers(1, VOCABULARY, 2))
    chosen = np.arange(turns) if all_turns else rng.permutation(turns)[: rng.integers(1, turns + 1)]
    actions = [[rng.integers(1, VOCABULARY, rng.integers(1, 5)).astype(np.int32) for _ in range(fresh)] for _ in chosen]
    episode = make_episode(
        f"episode-{seed}", tokens, start, end, rng.normal(size=turns), terminated=terminated, logprob=-4.0
    )
    episode = replace(episode, privileged=("", "ab", "abc")[seed % 3])
    return Row(episode, chosen.astype(np.int32), fresh=flat_actions(actions, -4.0) if fresh else None)


def make_episode(
    episode_id: str,
    tokens: Sequence[int] | np.ndarray,
    start: Sequence[int] | np.ndarray,
    end: Sequence[int] | np.ndarray,
    reward: Sequence[float] | np.ndarray,
    *,
    terminated: bool = True,
    logprob: float = 0.0,
    seed: int = 0,
) -> Episode:
    """Return an episode whose action tokens have this behaviour log-probability and version 1."""
    written = int(np.sum(end) - np.sum(start))
    return Episode(
        episode_id=episode_id,
        tokens=np.array(tokens, dtype=np.int32),
        action_start=np.array(start, dtype=np.int32),
        action_end=np.array(end, dtype=np.int32),
        reward=np.array(reward, dtype=np.float32),
        logprobs=np.full(written, logprob, dtype=np.float32),
        versions=np.ones(written, dtype=np.int32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
    )


def change(row: Row, **columns: Any) -> None:
    """Give the row an episode with other columns."""
    row.episode = replace(row.episode, **columns)


def flat_actions(
    actions: Sequence[Sequence[Sequence[int] | np.ndarray]], logprob: float = 0.0, version: int = 1
) -> FreshActions:
    """Return fresh actions, listed by sample, as the record that the engines return."""
    flat = [np.asarray(action, dtype=np.int32) for group in actions for action in group]
    offsets = np.cumsum([0, *map(len, flat)])
    return FreshActions(
        tokens=np.concatenate(flat),
        offsets=offsets,
        logprobs=np.full(offsets[-1], logprob, dtype=np.float32),
        versions=np.full(offsets[-1], version, dtype=np.int32),
        counts=np.array([len(group) for group in actions], dtype=np.int32),
    )


def some_fresh(row: Row, samples: Sequence[int]) -> FreshActions:
    """Return the fresh actions of these samples of a row, with log-probability -4 and version 1."""
    return flat_actions([row.fresh_at(sample) for sample in samples], -4.0)


def run_ranks(ranks: int, function: Callable[..., None], *args: Any) -> None:
    """Run `function(rank, *args)` in `ranks` processes of one gloo group; raises if any of them does.

    The processes are forks of one server that has imported the learner, which takes 5 seconds of a core.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed reads it when the server imports it
    multiprocessing.set_forkserver_preload(["learner.stages"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_rank, args=(ranks, port, function, args), nprocs=ranks, start_method="forkserver")


def _rank(rank: int, ranks: int, port: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    function(rank, *args)
    dist.destroy_process_group()


def save_json(path: Path, value: Any) -> None:
    import json

    path.write_text(json.dumps(value))
