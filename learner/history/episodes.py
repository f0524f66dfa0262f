"""The table of kept episodes: the columns of replay, and what only people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from tokenizers.decoders import DecodeStream

from buffer.episodes.schema import EPISODE_SCHEMA, episodes_to_batch
from buffer.rollout_records import PlayedEpisode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Stage = Literal["training", "evaluation"]

_ADDED = [
    ("stage", pa.string()),  # training or evaluation
    ("evaluation", pa.string()),  # name of the evaluation; null in training
    ("cycle", pa.int32()),  # finished cycles when an evaluation began; number of the cycle that played, from 1
    ("version", pa.int32()),  # newest policy version that wrote a token
    ("greedy", pa.bool_()),
    ("stop", pa.list_(pa.string())),  # one entry per turn
    ("action_seconds", pa.list_(pa.float32())),  # one entry per turn, with the wait for the engine
    ("env_seconds", pa.list_(pa.float32())),  # one entry per turn
    ("invalid", pa.list_(pa.bool_())),  # one entry per turn
    ("window_truncated", pa.bool_()),
    ("action_text", pa.list_(pa.string())),  # one entry per action token
]
EPISODE_TABLE: pa.Schema = pa.schema([*EPISODE_SCHEMA, *_ADDED], metadata=EPISODE_SCHEMA.metadata)
"""The columns of `history/episodes`: an archive that `buffer.archive` and `archer import` read too."""


def episode_table(
    kept: Sequence[PlayedEpisode],
    tokenizer: PreTrainedTokenizerBase,
    *,
    stage: Stage,
    cycle: int,
    evaluation: str | None = None,
    greedy: bool = False,
) -> pa.Table:
    """Return the rows of kept episodes, of `EPISODE_TABLE`, in order."""
    batch = episodes_to_batch([played.episode for played in kept])
    added = {
        "stage": [stage] * len(kept),
        "evaluation": [evaluation] * len(kept),
        "cycle": [cycle] * len(kept),
        "version": [int(played.episode.versions.max(initial=-1)) for played in kept],
        "greedy": [greedy] * len(kept),
        "stop": [played.stops for played in kept],
        "action_seconds": [played.action_seconds for played in kept],
        "env_seconds": [played.env_seconds for played in kept],
        "invalid": [played.invalid for played in kept],
        "window_truncated": [played.window_truncated for played in kept],
        "action_text": [_action_text(played, tokenizer) for played in kept],
    }
    columns = [pa.array(added[name], kind) for name, kind in _ADDED]
    return pa.Table.from_batches([pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=EPISODE_TABLE)])


def _action_text(played: PlayedEpisode, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of each action token of an episode, in order."""
    episode, texts = played.episode, []
    for start, end in zip(episode.action_start.tolist(), episode.action_end.tolist(), strict=True):
        texts += token_texts(episode.tokens[start:end].tolist(), tokenizer)
    return texts


def token_texts(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of each token of an action; a character of several tokens belongs to the last of them.

    Tokenizers that are not those of the package tokenizers decode each token alone.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [str(tokenizer.decode([token])) for token in tokens]
    texts, stream = [], DecodeStream(skip_special_tokens=False)
    for token in tokens:
        try:
            text = stream.step(backend, token)
        except Exception:  # noqa: BLE001 - the package raises no other class if the bytes so far are no text
            stream = DecodeStream(skip_special_tokens=False)
            text = stream.step(backend, token)
        texts.append(text or "")
    return texts
