"""Where two passes part: the first layer whose output differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from learner.check.reference import as_written
from learner.models.policy import features
from learner.models.pretrained import layers_of
from learner.passes.layout import Layout
from learner.passes.paths import paths


@torch.no_grad()
def first_difference(model: PreTrainedModel, layout: Layout, tolerance: float) -> str:
    """Return the name of the first layer at which the learner's pass and the model's own differ, or of the last step.

    Args:
        layout: packed, of rows whose sequences are compared as a whole.
        tolerance: the largest difference of an output that counts as none, relative to its largest entry.
    """
    own = paths(layout.input_ids, layout.structure)  # type: ignore[arg-type]
    with _outputs(model) as got:
        features(layers_of(model), layout)
    sequences = [ids[: int(mask.sum())] for ids, mask in zip(own.input_ids, own.mask, strict=True)]
    alone: list[dict[str, Tensor]] = []
    for ids in sequences:
        with as_written(model), _outputs(model) as found:
            model(input_ids=ids[None], use_cache=False)
        alone.append(found)
    packed = layout.structure.branch.shape  # type: ignore[union-attr]
    for name, output in got.items():
        expected = torch.zeros_like(output)
        at_packed = tuple(output.shape[:2]) == tuple(packed)
        for number, found in enumerate(alone):
            if name not in found:
                return name
            place = (own.row == number) & (layout.structure.branch >= 0)  # type: ignore[union-attr]
            if at_packed:
                expected[place] = found[name][0][own.column[place]]
            else:
                expected[number, : found[name].shape[1]] = found[name][0]
                output[number, found[name].shape[1] :] = 0
        if at_packed:
            output[layout.structure.branch < 0] = 0  # type: ignore[union-attr]
        scale = float(expected.abs().max()) or 1.0
        gap = float((output - expected).abs().max()) / scale
        if not np.isfinite(gap) or gap > tolerance:
            return name
    return "the output head"


@contextmanager
def _outputs(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Yield the outputs [sequences, length, width] of the embedding and of each layer, which fill as `model` runs."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _arguments: object, output: object) -> None:
            held = output if isinstance(output, Tensor) else output[0]  # type: ignore[index]
            if isinstance(held, Tensor) and held.dim() == 3:
                found[name] = held.detach().clone()

        return hook

    depth = model.config.get_text_config().num_hidden_layers
    blocks = (found for found in layers_of(model).modules() if isinstance(found, nn.ModuleList) and len(found) == depth)
    named = enumerate(next(blocks, ()))
    hooks = [layer.register_forward_hook(keep(f"layer {index} ({type(layer).__name__})")) for index, layer in named]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
