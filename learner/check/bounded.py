"""The model that a proof runs: the run's own, with fewer layers and shorter windows where it is large.

A layer's arithmetic does not depend on how many layers follow, nor on how long a window is. So the proof of a large
model reads its first layers, of every type that it has, and episodes that exceed a short window.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

LARGE = 600_000_000
"""Parameters above which a proof runs the first layers only: about 2.4 GB in float32."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "sliding_window_size")
_LONG, _SHORT = 256, 64
"""Windows of more than `_LONG` tokens are proved as windows of `_SHORT`."""


def windows(config: PreTrainedConfig) -> dict[str, int]:
    """Return the windows of local attention of a configuration in tokens, by the names of their fields."""
    text = config.get_text_config()
    found = {name: getattr(text, name, None) for name in _WINDOWS}
    return {name: size for name, size in found.items() if isinstance(size, int) and size > 0}


def longest_window(config: PreTrainedConfig) -> int:
    """Return the longest window of local attention in tokens, 0 without."""
    return max(windows(config).values(), default=0)


def bounded(config: PreTrainedConfig) -> tuple[PreTrainedConfig, list[str]]:
    """Return the configuration that a proof runs, and what it changes, each as a few words."""
    found, notes = copy.deepcopy(config), []
    text: Any = found.get_text_config()
    for name, size in windows(config).items():
        if size > _LONG:
            setattr(text, name, _SHORT)
            notes.append(f"{name} {size} as {_SHORT}")
    layers = getattr(text, "num_hidden_layers", None)
    if layers and parameters(config) > LARGE:
        kept = _layers_of_each_type(text, layers)
        if kept < layers:
            _keep_layers(text, kept, layers)
            notes.append(f"the first {kept} of {layers} layers")
    return found, notes


def parameters(config: PreTrainedConfig) -> int:
    """Return the number of parameters of the causal model of a configuration; allocates none."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _layers_of_each_type(text: Any, layers: int) -> int:
    """Return the number of leading layers that have every type of layer, at least two."""
    settings = [value for value in vars(text).values() if isinstance(value, list) and len(value) == layers]
    firsts = [values.index(value) + 1 for values in settings for value in values]
    # DeepSeek counts the first layers without experts.
    return min(max([2, getattr(text, "first_k_dense_replace", 0) + 1, *firsts]), layers)


def _keep_layers(text: Any, kept: int, layers: int) -> None:
    text.num_hidden_layers = kept
    for name, value in vars(text).copy().items():
        if isinstance(value, list) and len(value) == layers:
            setattr(text, name, value[:kept])
