"""Masks of packed passes, in the form that each attention function needs, for each kind of layer of a model.

transformers calls the mask function of the model's `attn_implementation` once for each kind of layer, with the rule of
that kind (causal, a sliding window, chunks) as a function of two positions. The functions that this module registers
apply the rule to positions along the path from the root of the tree, not to columns: a window of a branch reaches back
over its state into the trunk. Outside of `packing` they are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionMaskInterface
from transformers.masking_utils import eager_mask, flex_attention_mask, sdpa_mask

from learner.errors import PackingError
from learner.passes.attention import FLEX, TREE, Block, BranchMask

_BLOCK = 128
"""Queries of a block: small blocks skip more keys, large ones make fewer calls."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From the indices of row, head, query and key to whether the query attends to the key."""


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

    def begins(self) -> Tensor:
        """Return the column of the first token of each token's branch, long [rows, length - trunk], from `trunk` on."""
        branch = self.branch[:, self.trunk :]
        first = torch.ones_like(branch, dtype=torch.bool)
        first[:, 1:] = branch[:, 1:] != branch[:, :-1]
        return torch.where(first, torch.arange(branch.shape[1], device=branch.device), 0).cummax(1).values

    def positions(self) -> Tensor:
        """Return the number of tokens before each token on its path, long [rows, length]; 0 at pads of branches."""
        columns = torch.arange(self.branch.shape[1], device=self.branch.device).expand(self.branch.shape)
        within = columns[:, self.trunk :] - self.trunk - self.begins()
        branches = torch.where(self.branch[:, self.trunk :] > 0, self.sees[:, self.trunk :] + within, 0)
        return torch.cat((columns[:, : self.trunk], branches), 1)


class Local(NamedTuple):
    """A kind of layer whose tokens attend only to near ones.

    Attributes:
        position: long [rows, length], see `Tree.positions`.
        size: no token attends to one that is `size` or more positions before it.
        rule: whether a position attends to another one.
    """

    position: Tensor
    size: int
    rule: Rule


_packed: ContextVar[Tree | None] = ContextVar("packed", default=None)


@contextmanager
def packing(tree: Tree) -> Iterator[None]:
    """Let models that run in this block attend along `tree`."""
    token = _packed.set(tree)
    try:
        yield
    finally:
        _packed.reset(token)


def packed_tree() -> Tree | None:
    """Return the tree of the packed pass that runs now, None outside of `packing`."""
    return _packed.get()


def mask_mod(tree: Tree, local: Local | None = None) -> Rule:
    """Return a function from the indices of row, head, query and key to whether the query attends to the key.

    A branch attends to the trunk up to its state and to itself. A pad attends to itself only, so that no softmax is
    empty. This is the form of a mask that FlexAttention compiles.
    """
    branch, sees, _ = tree

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        trunk = (branch[row, key] == 0) & (key < sees[row, query])
        same = (branch[row, key] == branch[row, query]) & (branch[row, key] > 0) & (key <= query)
        found = trunk | same
        if local is not None:
            found = found & local.rule(row, head, local.position[row, query], local.position[row, key])
        return found | (key == query)

    return visible


def tree_mask(tree: Tree, local: Local | None = None) -> Tensor:
    """Return `mask_mod` as bool [rows, 1, length, length]."""
    rows, length = (torch.arange(size, device=tree.branch.device) for size in tree.branch.shape)
    head = torch.zeros((), dtype=torch.long, device=tree.branch.device)
    return mask_mod(tree, local)(rows[:, None, None], head, length[:, None], length).unsqueeze(1)


def branch_mask(tree: Tree, dtype: torch.dtype, local: Local | None = None) -> BranchMask:
    """Return the mask of the branches' queries in blocks; with `local`, also of the trunk's.

    Branches follow each other in the order of their states. A block therefore attends to a part of the trunk and to
    the few branches in it, which is several times less than all branches.

    The masks are additive because PyTorch would convert a boolean mask in each layer. Masked scores are the lowest
    number of `dtype` and not minus infinity, because a fully masked block of keys would make the softmax undefined.
    """
    rows, length = tree.branch.shape
    queries = length if local is not None else length - tree.trunk
    found = torch.empty(rows, 1, queries, 0, dtype=dtype, device=tree.branch.device).as_subclass(BranchMask)
    found.blocks = [] if local is None else list(_trunk_blocks(tree, dtype, local))
    found.blocks += _branch_blocks(tree, dtype, local)
    return found


def _trunk_blocks(tree: Tree, dtype: torch.dtype, local: Local) -> Iterator[Block]:
    """Yield the blocks of the trunk under a rule, whose positions are its columns."""
    column = torch.arange(tree.trunk, device=tree.branch.device)
    zero = torch.zeros((), dtype=torch.long, device=column.device)
    for first in range(0, tree.trunk, _BLOCK):
        query = slice(first, min(first + _BLOCK, tree.trunk))
        reach = slice(max(first - local.size + 1, 0), query.stop)
        allowed = local.rule(zero, zero, column[query, None], column[reach]) & (column[reach] <= column[query, None])
        yield Block(query, reach, slice(0, 0), _additive(allowed[None, None], dtype))


def _branch_blocks(tree: Tree, dtype: torch.dtype, local: Local | None) -> Iterator[Block]:
    rows, length = tree.branch.shape
    branch, sees = tree.branch[:, tree.trunk :], tree.sees[:, tree.trunk :]
    column = torch.arange(length - tree.trunk, device=branch.device)
    trunk_column = torch.arange(tree.trunk, device=branch.device)
    start = tree.begins()
    for first in range(0, len(column), _BLOCK):
        query = slice(first, min(first + _BLOCK, len(column)))
        inside = branch[:, first] > 0
        own = slice(int(torch.where(inside, start[:, first], first).min()), query.stop)
        reach = slice(_nearest(tree, query, local), int(sees[:, query].max()))
        leading = trunk_column[reach] < sees[:, query, None]
        same = (branch[:, query, None] == branch[:, None, own]) & (branch[:, query, None] > 0)
        same &= column[query, None] >= column[own]
        if local is not None:
            row = torch.arange(rows, device=branch.device)[:, None, None]
            position = local.position[:, tree.trunk :]
            at = position[:, query, None]
            leading = leading & local.rule(row, row.new_zeros(()), at, trunk_column[reach])
            same = same & local.rule(row, row.new_zeros(()), at, position[:, None, own])
        allowed = torch.cat((leading, same | (column[query, None] == column[own])), -1).unsqueeze(1)
        own = slice(tree.trunk + own.start, tree.trunk + own.stop)
        yield Block(slice(tree.trunk + query.start, tree.trunk + query.stop), reach, own, _additive(allowed, dtype))


def _nearest(tree: Tree, query: slice, local: Local | None) -> int:
    """Return the first column of the trunk that queries of branches can attend to under a rule."""
    if local is None:
        return 0
    branch, position = (given[:, tree.trunk :][:, query] for given in (tree.branch, local.position))
    sees = int(tree.sees[:, tree.trunk :][:, query].max())
    least = int(torch.where(branch > 0, position, torch.iinfo(position.dtype).max).min())
    return min(max(least - local.size + 1, 0), sees)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)


def _local(tree: Tree, mask_function: Rule, local_size: int | None, use_vmap: bool) -> Local | None:
    """Return the rule of a kind of layer, None where it hides nothing of `tree`.

    Raises:
        PackingError: the rule depends on columns in a way that only its model knows.
    """
    if use_vmap:
        raise PackingError("its masks depend on more than positions")
    if local_size is None:
        return None
    position = tree.positions()
    return Local(position, local_size, mask_function) if int(position.max()) >= local_size else None


def _tree_mask(tree: Tree, local: Local | None, **_: Any) -> Tensor:
    return tree_mask(tree, local)


def _additive_mask(tree: Tree, local: Local | None, *, dtype: torch.dtype, **_: Any) -> Tensor:
    return _additive(tree_mask(tree, local), dtype)


def _branch_mask(tree: Tree, local: Local | None, *, dtype: torch.dtype, **_: Any) -> BranchMask:
    device = tree.branch.device.type
    rounded = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
    return branch_mask(tree, rounded, local)


def _block_mask(tree: Tree, local: Local | None, **_: Any) -> BlockMask:
    rows, length = tree.branch.shape
    return create_block_mask(mask_mod(tree, local), rows, None, length, length, device=str(tree.branch.device))


def _register(name: str, plain: Callable[..., Any], packed: Callable[..., Any]) -> None:
    """Let models with the `attn_implementation` `name` use the masks of `packed` inside of `packing`."""

    def mask(*args: Any, **kwargs: Any) -> Any:
        tree = packed_tree()
        if tree is None:
            return plain(*args, **kwargs)
        local = _local(tree, kwargs["mask_function"], kwargs.get("local_size"), kwargs.get("use_vmap", False))
        return packed(tree, local, **kwargs)

    AttentionMaskInterface.register(name, mask)


_register(TREE, sdpa_mask, _branch_mask)
_register("sdpa", sdpa_mask, _tree_mask)
_register("eager", eager_mask, _additive_mask)
_register(FLEX, flex_attention_mask, _block_mask)
