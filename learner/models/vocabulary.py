"""Token ids: which id pads, and how a critic with its own tokenizer reads the policy's tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from learner.errors import LearnerError

# Largest share of the policy's vocabulary that may have no counterpart in the critic's.
MAX_UNKNOWN_SHARE = 0.01
ROLES = ("pad_token", "bos_token", "eos_token", "sep_token", "cls_token", "mask_token", "unk_token")


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that fills sequences: the pad token, or else the end-of-sequence token.

    Either serves, because masks hide every pad.

    Raises:
        LearnerError: the tokenizer has neither.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise LearnerError(
        f"the tokenizer of {tokenizer.name_or_path!r} has neither a pad nor an end-of-sequence token; set one in its "
        "tokenizer_config.json"
    )


def text_tokens(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """Return a function that returns the token ids of a text as the continuation of another one, each text once."""

    @lru_cache(maxsize=4096)
    def encode(text: str) -> list[int]:
        # Words have the space before them in most vocabularies, and are then one token.
        return list(tokenizer.encode(f" {text}", add_special_tokens=False)) if text else []

    return encode


def vocabulary_size(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of token ids that the policy at `path` can write.

    It is the size of its embedding, which many released models pad beyond the tokenizer's vocabulary.
    """
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False).get_text_config()
    return max(int(getattr(config, "vocab_size", None) or 0), tokens_of(tokenizer))


def tokens_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the least size of an embedding that has a row for every token of `tokenizer`."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def require_embedding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise LearnerError if a model of this configuration has no embedding for some token of `tokenizer`."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    needed = tokens_of(tokenizer)
    if size is not None and size < needed:
        raise LearnerError(
            f"its tokenizer has {needed} tokens and its embedding only {size} rows (`vocab_size` in config.json), so "
            f"{needed - size} tokens have none; save the model after resize_token_embeddings({needed}), or use the "
            "tokenizer that it was trained with"
        )


def require_same_vocabulary(policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase, path: str) -> None:
    """Raise LearnerError if the causal backbone at `path` has another vocabulary than the policy."""
    if policy.get_vocab() != critic.get_vocab():
        raise LearnerError(
            f"the critic's backbone {path!r} has another vocabulary than the policy {policy.name_or_path!r}; a causal "
            "critic reads the policy's tokens, so use backbone=policy, a model of the same family, or an encoder"
        )


def translate_text(
    policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from the policy's ids to the critic's ids of the same text, for unrelated tokenizers.

    The function caches its results, because replay draws the same states repeatedly.
    """

    @lru_cache(maxsize=65_536)
    def translate(tokens: bytes) -> np.ndarray:
        text = policy.decode(np.frombuffer(tokens, dtype=np.int32), skip_special_tokens=True)
        return np.asarray(critic(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

    return lambda tokens: translate(np.ascontiguousarray(tokens, dtype=np.int32).tobytes())


def translate_vocabulary(
    policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase, path: str, *, size: int = 0
) -> np.ndarray:
    """Return the critic's id of each of the policy's ids, int64 [policy vocabulary, at least `size`].

    An id without a token, of which a padded embedding has some, is unknown to the critic.

    GPT-2 and RoBERTa split text into the same pieces with different ids, so pieces are matched by their text. Special
    tokens are matched by their role.

    Raises:
        LearnerError: more than 1% of the pieces have no counterpart.
    """
    vocabulary = critic.get_vocab()
    unknown_id = critic.unk_token_id
    special = {getattr(policy, role): getattr(critic, f"{role}_id") for role in ROLES if getattr(policy, role)}
    special = {token: token_id for token, token_id in special.items() if token_id is not None}
    tokens = tokens_of(policy)
    table = np.full(max(tokens, size), 0 if unknown_id is None else unknown_id, dtype=np.int64)
    unknown = []
    for token, token_id in policy.get_vocab().items():
        found = special.get(token, vocabulary.get(token, unknown_id))
        if found is None or (found == unknown_id and token not in special):
            unknown.append(token)
        table[token_id] = found if found is not None else 0
    if unknown and (unknown_id is None or len(unknown) > MAX_UNKNOWN_SHARE * tokens):
        raise LearnerError(
            f"{len(unknown)} of the policy's {tokens} tokens (such as {unknown[:3]}) have no counterpart in the "
            f"critic's tokenizer {path!r}; set critic.reads=text, choose a backbone of the same tokenizer family, or "
            "backbone=policy"
        )
    return table
