"""Who may look at whom in a packed pass, and how a model is told so: for CPUs, for GPUs, and densely to check them by.

A packed sequence is a tree: a trunk of `trunk` columns, then branches. The trunk is plainly causal, so only the
queries of branches need a mask. `TREE` says that to PyTorch's fused kernels in two calls; half of the trunk's scores
and most of a dense mask are never computed. FlexAttention instead skips blocks that nobody sees; it needs a GPU.

A model attends in the way it was loaded with (`attn_implementation`), and a layout makes the mask that fits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from learner.passes.precision import compute_dtype

TREE = "archer_tree"
FLEX = "flex_attention"


class Tree(NamedTuple):
    """The shape of packed sequences.

    Attributes:
        branch: int32 [rows, length]; 0 is the trunk, 1, 2, ... the branches, -1 a pad.
        sees: int32 [rows, length]; a token sees the trunk's first `sees` tokens. On the trunk: itself and before.
        trunk: columns that hold trunks; branches begin after them, in each row in the same column.
    """

    branch: Tensor
    sees: Tensor
    trunk: int

    def to(self, device: torch.device) -> Tree:
        return Tree(self.branch.to(device), self.sees.to(device), self.trunk)


def implementation() -> str:
    """How causal models attend where this process trains them: the rule of `learner.accelerator`."""
    accelerator = os.environ.get("DS_ACCELERATOR") or ("cuda" if torch.cuda.is_available() else "cpu")
    return FLEX if accelerator == "cuda" else TREE


def packed_mask(tree: Tree, attends: str, dtype: torch.dtype) -> Tensor | BlockMask:
    """The mask of a model that `attends` in this way.

    Args:
        attends: the model's `attn_implementation`.
        dtype: of its weights, and of its activations where no autocast says otherwise.
    """
    if attends == TREE:
        return branch_mask(tree, compute_dtype(dtype, tree.branch.device))
    return block_mask(tree) if attends == FLEX else tree_mask(tree.branch, tree.sees)


def tree_mask(branch: Tensor, sees: Tensor, first: int = 0) -> Tensor:
    """Who may look at whom, densely.

    Args:
        branch, sees: [rows, length], see `Tree`.
        first: the first query; queries before it are left out.

    Returns:
        bool [rows, 1, length - first, length], true where the query (third axis) sees the key (fourth). A pad sees
        itself only, so that no softmax is empty.
    """
    key = torch.arange(branch.shape[1], device=branch.device)
    query = key[first:].unsqueeze(1)
    key_branch = branch.unsqueeze(1)
    trunk = (key_branch == 0) & (key < sees[:, first:].unsqueeze(2))
    same = (key_branch == branch[:, first:].unsqueeze(2)) & (key_branch > 0) & (key <= query)
    return (trunk | same | (key == query)).unsqueeze(1)


def branch_mask(tree: Tree, dtype: torch.dtype) -> Tensor:
    """The mask of the branches' queries alone, to be added to scores: [rows, 1, length - trunk, length].

    Additive, since PyTorch would turn a boolean one into it again in each layer. The lowest number of `dtype` instead
    of minus infinity: a block of keys that a query doesn't see must not make its softmax undefined.
    """
    allowed = tree_mask(tree.branch, tree.sees, tree.trunk)
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def mask_mod(tree: Tree) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention's question, whether a query of a row sees a key of it; `tree_mask` says the same."""
    branch, sees, _ = tree

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        trunk = (branch[row, key] == 0) & (key < sees[row, query])
        same = (branch[row, key] == branch[row, query]) & (branch[row, key] > 0) & (key <= query)
        return trunk | same | (key == query)

    return visible


def block_mask(tree: Tree) -> BlockMask:
    """FlexAttention's mask: which blocks of queries and keys to skip, and the question for the others."""
    rows, length = tree.branch.shape
    return create_block_mask(mask_mod(tree), rows, None, length, length, device=str(tree.branch.device))


def tree_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of a transformers model over trunks and branches.

    Args:
        query, key, value: [rows, heads, length, width of a head].
        attention_mask: `branch_mask`, over the last queries; the queries before them are the trunk's. Of separate
            sequences what transformers makes of their pads: all queries, or None where none is padded.

    Returns:
        [rows, length, heads, width of a head], and no weights.
    """
    trunk = query.shape[2] - (0 if attention_mask is None else attention_mask.shape[2])
    parts = []
    if trunk:
        over = (query[:, :, :trunk], key[:, :, :trunk], value[:, :, :trunk])
        parts.append(sdpa_attention_forward(module, *over, None, **kwargs | {"is_causal": True})[0])
    if attention_mask is not None and attention_mask.shape[2]:
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
    """transformers' FlexAttention, with one dtype: under autocast rotary positions leave queries and keys in float32,
    and only PyTorch's own attention would be given rounded ones."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(TREE, tree_attention)
AttentionInterface.register(FLEX, flex_attention)
# Masks of separate sequences, which transformers makes itself; a packed one has four axes and passes as it is.
AttentionMaskInterface.register(TREE, sdpa_mask)
