"""The policy's probability of the data's actions, over that of the policy that wrote them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, action_record

_MOST_KEPT = 100_000
"""Episodes whose log-probabilities are kept; some tens of megabytes."""


class ActionRatios:
    """Computes pi(a | s) / mu(a | s) of the data's actions, and keeps the log-probabilities while they are valid.

    mu is the policy that wrote the action. For an action that no policy wrote it is the reference policy. Without one
    it is 1, because such actions have the log-probability 0 in replay; the ratio is then pi, as in the tree backup
    (Precup et al., 2000), which holds for any mu.

    Args:
        policy, reference: return the log-probability of each predicted token of a layout; `reference` may be None.
        keep: whether log-probabilities are kept by episode. Under ZeRO-3 each pass is collective, so that a rank must
            not leave out a pass that others make.
    """

    def __init__(
        self,
        encoder: PackedEncoder,
        policy: Callable[..., Tensor],
        reference: Callable[..., Tensor] | None,
        device: torch.device,
        *,
        keep: bool,
    ) -> None:
        self._encoder = encoder
        self._policy = policy
        self._reference = reference
        self._device = device
        self._keep = keep
        self._current: dict[str, Tensor] = {}
        self._written: dict[str, Tensor] = {}

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Return the ratios, float32 [samples]. Each row has the first turns of its episode, in order."""
        current = self._of(self._current, rows, self._under(self._policy))
        written = self._of(self._written, rows, self._as_written)
        return (torch.cat(current) - torch.cat(written)).exp().float()

    def policy_changed(self) -> None:
        """Forget the log-probabilities under the policy."""
        self._current.clear()

    def _of(self, kept: dict[str, Tensor], rows: Sequence[Row], compute: Callable[..., list[Tensor]]) -> list[Tensor]:
        """Return log-probabilities [turns] of each row, computed for those that are not kept."""
        new = [row for row in rows if not self._keep or row.episode.episode_id not in kept]
        found = dict(zip((row.episode.episode_id for row in new), compute(new), strict=True)) if new else {}
        if self._keep:
            if len(kept) > _MOST_KEPT:
                kept.clear()
                return self._of(kept, rows, compute)
            kept.update(found)
            found = kept
        return [found[row.episode.episode_id] for row in rows]

    def _under(self, policy: Callable[..., Tensor]) -> Callable[[Sequence[Row]], list[Tensor]]:
        def compute(rows: Sequence[Row]) -> list[Tensor]:
            layout = self._encoder.encode(rows, ("action",), 1).to(self._device)
            with torch.no_grad():
                logprob = policy(layout, layout.predictions["action"])
            return _of_turns(rows, logprob, layout.predictions["action"].sample)

        return compute

    def _as_written(self, rows: Sequence[Row]) -> list[Tensor]:
        logprob, versions = (torch.from_numpy(found).to(self._device) for found in action_record(rows))
        turns = [row.episode.action_end[row.turns] - row.episode.action_start[row.turns] for row in rows]
        lengths = torch.tensor([length for row in turns for length in row], device=self._device)
        sample = torch.arange(len(lengths), device=self._device).repeat_interleave(lengths)
        recorded = _of_turns(rows, logprob, sample)
        if self._reference is None:
            return recorded
        unwritten = _of_turns(rows, (versions < 0).float(), sample)
        reference = self._under(self._reference)(rows)
        return [
            torch.where(no_policy > 0, r, w) for no_policy, r, w in zip(unwritten, reference, recorded, strict=True)
        ]


def _of_turns(rows: Sequence[Row], values: Tensor, sample: Tensor) -> list[Tensor]:
    """Return the sums over the tokens of each turn, float64 [turns] of each row; `sample` [tokens] is their turn."""
    turns = [len(row.turns) for row in rows]
    sums = torch.zeros(sum(turns), dtype=torch.float64, device=values.device)
    sums.index_add_(0, sample, values.double())
    return list(sums.split(turns))
