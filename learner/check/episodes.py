"""Random episodes with fresh actions, longer than any attention window of the model that they prove."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedConfig

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.check.bounded import longest_window
from learner.passes.rows import Row

_LEAST = 160
"""Tokens of the longest trunk: more than one block of queries."""
_BEYOND = 40
"""Tokens of the longest trunk beyond the longest window."""


def probe_rows(config: PreTrainedConfig, seed: int) -> list[Row]:
    """Return two rows of different lengths, with fresh actions early, in the middle and at the end.

    A window ends inside of trunks and of branches. The tokens are random, without those that have a meaning of their
    own in the configuration.
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or 4096
    branch = 24
    longest = min(max(_LEAST, longest_window(config) + _BEYOND), int(limit) - branch)
    rng = np.random.default_rng(seed)
    ids = np.setdiff1d(np.arange(text.vocab_size), _named(config))
    return [_row(rng, ids, length, branch) for length in (longest, max(longest // 3, 8))]


def _row(rng: np.random.Generator, ids: np.ndarray, length: int, branch: int) -> Row:
    tokens = rng.choice(ids, length).astype(np.int32)
    bounds = np.linspace(2, length - 1, 5).astype(np.int32)
    start, end = bounds[:-1], bounds[:-1] + np.maximum((bounds[1:] - bounds[:-1]) // 2, 1)
    episode = Episode(
        episode_id=f"proof-{length}",
        tokens=tokens,
        action_start=start,
        action_end=end,
        reward=np.zeros(len(start), dtype=np.float32),
        logprobs=np.zeros(int((end - start).sum()), dtype=np.float32),
        versions=np.zeros(int((end - start).sum()), dtype=np.int32),
        terminated=True,
        truncated=False,
        seed=0,
    )
    turns = np.array([0, 2, 3], dtype=np.int32)
    actions = [rng.choice(ids, tokens_of).astype(np.int32) for tokens_of in (3, 1, branch, 5)]
    return Row(episode, turns, fresh=_fresh(actions, counts=(1, 2, 1)))


def _fresh(actions: Sequence[np.ndarray], counts: Sequence[int]) -> FreshActions:
    offsets = np.cumsum([0, *map(len, actions)])
    return FreshActions(
        tokens=np.concatenate(actions),
        offsets=offsets,
        logprobs=np.zeros(offsets[-1], dtype=np.float32),
        versions=np.zeros(offsets[-1], dtype=np.int32),
        counts=np.array(counts, dtype=np.int32),
    )


def _named(config: PreTrainedConfig) -> list[int]:
    """Return the ids of special tokens, such as the one that stands for an image."""
    found: list[int] = []
    for settings in (config, config.get_text_config()):
        for name, value in vars(settings).items():
            if name.endswith(("_token_id", "_token_index")):
                found += [value] if isinstance(value, int) else value if isinstance(value, list) else []
    return found
