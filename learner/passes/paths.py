"""Separate sequences of a packed layout, for models that cannot attend along a tree.

Each trunk is a sequence, and each branch is one after its state. The hidden states are then read back into the columns
of the packed layout, so that its points and predictions hold for both kinds of passes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from learner.passes.masks import Tree


class Paths(NamedTuple):
    """The sequences of a layout.

    Attributes:
        input_ids: long [sequences, length].
        mask: long [sequences, length], 0 at the pads, which follow a sequence.
        row, column: the sequence and the place in it of each packed token, long [rows, columns].
    """

    input_ids: Tensor
    mask: Tensor
    row: Tensor
    column: Tensor


def paths(input_ids: Tensor, tree: Tree) -> Paths:
    """Return the sequences of packed `input_ids` [rows, columns]."""
    branch, position = tree.branch.long(), tree.positions()
    real = branch >= 0
    rows = torch.arange(len(branch), device=branch.device)[:, None].expand_as(branch)
    most = int(branch.max()) + 1
    # Trunks first, then branches, each in the order of its rows. A pad reads at the start of its row's trunk.
    key = torch.where(branch > 0, len(branch) + rows * most + branch, rows)
    keys, sequence = torch.unique(key, return_inverse=True)
    row_of = torch.where(keys < len(branch), keys, (keys - len(branch)) // most)
    column = torch.where(real, position, 0)
    length = int(column.max()) + 1
    # A sequence starts with the trunk that its tokens see; those of the trunk itself overwrite it with the same ids.
    seen = torch.zeros(len(keys), dtype=torch.long, device=branch.device)
    seen.scatter_reduce_(0, sequence[real], tree.sees.long()[real], "amax")
    ends = torch.zeros_like(seen).scatter_reduce_(0, sequence[real], column[real] + 1, "amax")
    ids = input_ids[:, :1].expand(-1, length)[row_of].clone()
    leading = min(length, tree.trunk)
    held = torch.arange(leading, device=branch.device) < seen[:, None]
    ids[:, :leading] = torch.where(held, input_ids[row_of][:, :leading], ids[:, :leading])
    ids[sequence[real], column[real]] = input_ids[real]
    mask = (torch.arange(length, device=branch.device) < ends[:, None]).long()
    return Paths(ids, mask, sequence, column)
