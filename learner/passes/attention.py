"""Attention over packed passes: masks and attention functions for CPUs (`TREE`) and GPUs (`FLEX`).

A packed sequence is a tree: a trunk of `trunk` columns, then branches. The trunk is causal, so only the queries of
branches need a mask. `TREE` calls PyTorch's fused attention once for the trunk and once for each block of branches,
which skips most of the scores of a dense mask. `FLEX` is FlexAttention, which skips blocks without a visible key and
needs a GPU.

A model's attention function is set when it is loaded (`attn_implementation`); `packed_mask` builds the mask for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from learner.passes.precision import accelerator

TREE = "archer_tree"
FLEX = "flex_attention"
_BLOCK = 128
"""Queries of a block of branches: small blocks skip more keys, large ones make fewer calls."""


class Tree(NamedTuple):
    """The shape of packed sequences.

    Attributes:
        branch: int32 [rows, length]; 0 for the trunk, 1, 2, ... for the branches, -1 for pads.
        sees: int32 [rows, length]; the number of leading trunk tokens that a token attends to, on the trunk including
            itself.
        trunk: number of columns of the trunks; in each row, the branches begin after them.
    """

    branch: Tensor
    sees: Tensor
    trunk: int

    def to(self, device: torch.device) -> Tree:
        return Tree(self.branch.to(device), self.sees.to(device), self.trunk)


def implementation() -> str:
    """Return the `attn_implementation` of causal models that train on this process's accelerator."""
    return FLEX if accelerator() == "cuda" else TREE


def packed_mask(tree: Tree, attends: str, dtype: torch.dtype) -> Tensor | BlockMask:
    """Return the mask of a packed pass for a model.

    Args:
        attends: the model's `attn_implementation`.
        dtype: the dtype of its weights, which is that of its activations unless autocast sets another.
    """
    if attends == TREE:
        device = tree.branch.device.type
        return branch_mask(tree, torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype)
    if attends != FLEX:
        return tree_mask(tree)
    rows, length = tree.branch.shape
    return create_block_mask(mask_mod(tree), rows, None, length, length, device=str(tree.branch.device))


def mask_mod(tree: Tree) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return a function from the indices of row, head, query and key to whether the query attends to the key.

    A branch attends to the trunk up to its state and to itself. A pad attends to itself only, so that no softmax is
    empty. This is the form of a mask that FlexAttention compiles.
    """
    branch, sees, _ = tree

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        trunk = (branch[row, key] == 0) & (key < sees[row, query])
        same = (branch[row, key] == branch[row, query]) & (branch[row, key] > 0) & (key <= query)
        return trunk | same | (key == query)

    return visible


def tree_mask(tree: Tree) -> Tensor:
    """Return `mask_mod` as bool [rows, 1, length, length]."""
    rows, length = (torch.arange(size, device=tree.branch.device) for size in tree.branch.shape)
    return mask_mod(tree)(rows[:, None, None], rows, length[:, None], length).unsqueeze(1)


class Block(NamedTuple):
    """Consecutive queries of branches, and the keys that any of them attends to."""

    queries: slice
    trunk: int  # number of the trunk's keys
    own: slice  # the keys of the queries' own branches
    mask: Tensor  # additive, [rows, 1, queries, keys]


class BranchMask(Tensor):
    """The mask of all branches, [rows, 1, length - trunk, 0] and without data: `blocks` has its parts.

    It is a tensor, because transformers passes a mask of four axes to the attention function as it is.
    """

    blocks: list[Block]


def branch_mask(tree: Tree, dtype: torch.dtype) -> BranchMask:
    """Return the mask of the branches' queries, in blocks.

    Branches follow each other in the order of their states. A block therefore attends to a prefix of the trunk and to
    the few branches in it, which is several times less than all branches.

    The masks are additive because PyTorch would convert a boolean mask in each layer. Masked scores are the lowest
    number of `dtype` and not minus infinity, because a fully masked block of keys would make the softmax undefined.
    """
    rows, length = tree.branch.shape
    branch, sees = tree.branch[:, tree.trunk :], tree.sees[:, tree.trunk :]
    column = torch.arange(length - tree.trunk, device=branch.device)
    found = torch.empty(rows, 1, len(column), 0, dtype=dtype, device=branch.device).as_subclass(BranchMask)
    found.blocks = []
    begins = torch.ones_like(branch, dtype=torch.bool)
    begins[:, 1:] = branch[:, 1:] != branch[:, :-1]
    start = torch.where(begins, column, 0).cummax(1).values
    for first in range(0, len(column), _BLOCK):
        query = slice(first, min(first + _BLOCK, len(column)))
        inside = branch[:, first] > 0
        own = slice(int(torch.where(inside, start[:, first], first).min()), query.stop)
        trunk = int(sees[:, query].max())
        same = (branch[:, query, None] == branch[:, None, own]) & (branch[:, query, None] > 0)
        same = (same & (column[query, None] >= column[own])) | (column[query, None] == column[own])
        allowed = torch.cat((torch.arange(trunk, device=column.device) < sees[:, query, None], same), -1).unsqueeze(1)
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        mask.masked_fill_(~allowed, torch.finfo(dtype).min)
        own = slice(tree.trunk + own.start, tree.trunk + own.stop)
        found.blocks.append(Block(slice(tree.trunk + query.start, tree.trunk + query.stop), trunk, own, mask))
    return found


def tree_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Return the attention over trunks and branches, [rows, length, heads, head width], and no weights.

    Args:
        query, key, value: [rows, heads, length, head width].
        attention_mask: `branch_mask`, which covers the last queries; the queries before them are the trunk's. For
            separate sequences, the mask that transformers makes of their pads: all queries, or None without pads.
    """
    trunk = query.shape[2] - (0 if attention_mask is None else attention_mask.shape[2])
    parts = []
    if trunk:
        over = (query[:, :, :trunk], key[:, :, :trunk], value[:, :, :trunk])
        parts.append(sdpa_attention_forward(module, *over, None, **kwargs | {"is_causal": True})[0])
    if isinstance(attention_mask, BranchMask):
        for queries, reach, own, mask in attention_mask.blocks:
            keys = (torch.cat((given[:, :, :reach], given[:, :, own]), 2) for given in (key, value))
            parts.append(sdpa_attention_forward(module, query[:, :, queries], *keys, mask, **kwargs)[0])
    elif attention_mask is not None:
        parts.append(sdpa_attention_forward(module, query[:, :, trunk:], key, value, attention_mask, **kwargs)[0])
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1), None


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
# transformers makes the masks of separate sequences with this; it passes a packed mask, which has four axes, unchanged.
AttentionMaskInterface.register(TREE, sdpa_mask)
