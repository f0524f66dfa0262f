"""Attention over packed passes: masks and attention functions for CPUs (`TREE`) and GPUs (`FLEX`).

A packed sequence is a tree: a trunk of `trunk` columns, then branches. The trunk is causal, so only the queries of
branches need a mask. `TREE` calls PyTorch's fused attention once for the trunk and once for each block of branches,
which skips most of the scores of a dense mask. `FLEX` is FlexAttention, which skips blocks without a visible key and
needs a GPU.

A model's attention function is set when it is loaded (`attn_implementation`). The model asks transformers for the mask
of each of its kinds of layers (full, sliding window, chunked). Inside of `packing`, `learner.passes.masks` answers with
the masks of a tree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from learner.errors import PackingError
from learner.passes.precision import accelerator

TREE = "archer_tree"
FLEX = "flex_attention"


def implementation() -> str:
    """Return the `attn_implementation` of causal models that train on this process's accelerator."""
    return FLEX if accelerator() == "cuda" else TREE


class Block(NamedTuple):
    """Consecutive queries, and the keys that any of them attends to."""

    queries: slice
    trunk: slice  # the keys of the trunk
    own: slice  # the keys of the queries' own branches
    mask: Tensor  # additive, [rows or 1, 1, queries, keys]


class BranchMask(Tensor):
    """The mask of the last queries of a tree, [rows, 1, queries, 0] and without data: `blocks` has its parts.

    The queries before them are those of a causal trunk. It is a tensor, because transformers passes a mask of four axes
    to the attention function as it is.
    """

    blocks: list[Block]


def tree_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Return the attention over trunks and branches, [rows, length, heads, head width], and no weights.

    Args:
        query, key, value: [rows, heads, length, head width].
        attention_mask: `learner.passes.masks.branch_mask`, which covers the last queries; the queries before them are
            the trunk's. For separate sequences, the mask that transformers makes of their pads: all queries, or None
            without pads.

    Raises:
        PackingError: a packed pass of a model with a bias for each pair of columns, whose branches have other columns.
    """
    packed = isinstance(attention_mask, BranchMask)
    if packed and kwargs.get("position_bias") is not None:
        raise PackingError("its attention adds a bias for each pair of columns")
    trunk = query.shape[2] - (0 if attention_mask is None else attention_mask.shape[2])
    parts = []
    if trunk:
        leading = (given[:, :, :trunk] for given in (query, key, value))
        parts.append(_attention(module, *leading, mask=None, **kwargs))
    if isinstance(attention_mask, BranchMask):
        for queries, reach, own, mask in attention_mask.blocks:
            keys = (torch.cat((given[:, :, reach], given[:, :, own]), 2) for given in (key, value))
            parts.append(_attention(module, query[:, :, queries], *keys, mask=mask, **kwargs))
    elif attention_mask is not None:
        parts.append(_attention(module, query[:, :, trunk:], key, value, mask=attention_mask, **kwargs))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1), None


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """Return the attention under a mask, or the causal one without: [rows, queries, heads, head width]."""
    if kwargs.get("softcap") is None and kwargs.get("s_aux") is None:
        causal = {"is_causal": True} if mask is None else {}
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs | causal)[0]
    return _capped_attention(query, key, value, mask, **kwargs)


def _capped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Return the attention with what PyTorch's fused one leaves out: a cap of the scores (Gemma 2), sinks (gpt-oss).

    Args:
        softcap: scores become softcap * tanh(scores / softcap).
        s_aux: the score of each head's sink, [heads]: a key without value.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    lowest = torch.finfo(scores.dtype).min
    if mask is None:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    if s_aux is not None:
        scores = torch.cat((scores, s_aux.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)), -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)[..., : key.shape[2]]
    return (weights @ value).transpose(1, 2).contiguous()


def flex_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return transformers' FlexAttention with queries and keys in the dtype of the values.

    Under autocast, rotary positions leave queries and keys in float32, and autocast rounds only the arguments of
    PyTorch's own attention functions.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(TREE, tree_attention)
AttentionInterface.register(FLEX, flex_attention)
