"""Sums over the micro-batches of a step and over all ranks, without host synchronisation before the step ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

GAP_BOUNDS = tuple(10.0**exponent for exponent in range(-7, 1))
"""Upper bounds, in nats, of the buckets in which `Sums.gaps` counts."""


class Sums:
    """Named float64 sums on the device. `add` does not synchronise with the host; `total` does, once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._sums: dict[str, Tensor] = {}
        self._gaps: Tensor | None = None
        self.gap_counts: np.ndarray | None = None
        """After `total`: what `gaps` counted over all ranks, float64 [buckets + 1], and last the sum of the gaps."""

    def add(self, **values: Tensor | float) -> None:
        """Add a scalar to each of the named sums. The ranks must add the same names in the same order."""
        for name, value in values.items():
            more = value.detach().double() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, self._zero) + more

    def gaps(self, logprob: Tensor, behaviour: Tensor, current: Tensor) -> None:
        """Count |log pi - log mu| of the tokens that are `current`, bool [tokens], by powers of ten."""
        gap = (logprob.detach() - behaviour).abs().double().nan_to_num(nan=torch.inf)
        if self._gaps is None:
            self._bounds = torch.tensor(GAP_BOUNDS, dtype=torch.float64, device=self.device)
            self._gaps = torch.zeros(len(GAP_BOUNDS) + 2, dtype=torch.float64, device=self.device)
        # Not bincount, which would synchronise with the device.
        self._gaps.index_add_(0, torch.bucketize(gap, self._bounds), current.double())
        self._gaps[-1] += torch.where(current, gap, 0.0).sum()

    def total(self) -> dict[str, float]:
        """Return the sums over all ranks. Called on every rank."""
        stacked = torch.stack(list(self._sums.values()))
        if self._gaps is not None:
            stacked = torch.cat((stacked, self._gaps))
        if dist.get_world_size() > 1:
            dist.all_reduce(stacked)
        found = stacked.tolist()
        if self._gaps is not None:
            self.gap_counts = np.array(found[len(self._sums) :])
        return dict(zip(self._sums, found, strict=False))

    def means(self, phase: str, samples: float, per_sample: Collection[str] = ("loss",)) -> dict[str, float]:
        """Return the sums over all ranks as metrics "PHASE/NAME". Called on every rank.

        The sums `per_sample` are divided by `samples`, the others by the sum "tokens", which is not returned.
        """
        total = self.total()
        tokens = max(total.pop("tokens"), 1.0)
        sizes = {name: samples if name in per_sample else tokens for name in total}
        return {f"{phase}/{name}": value / sizes[name] for name, value in total.items()}


def moments(tensors: Iterable[Tensor]) -> tuple[float, float]:
    """Return mean and standard deviation over all entries on all ranks. Called on every rank."""
    flat = torch.cat([t.flatten() for t in tensors]).double()
    sums = torch.stack([flat.sum(), flat.square().sum(), torch.tensor(float(flat.numel())).to(flat)])
    if dist.get_world_size() > 1:
        dist.all_reduce(sums)
    total, squares, count = sums.tolist()
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5
