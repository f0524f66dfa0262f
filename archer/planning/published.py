"""Shapes of published models, so that a plan for them needs no network.

They are the sizes in the models' config.json; a plan takes the model's own file where the machine has it.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import PreTrainedConfig

_QWEN = {"vocab_size": 152064, "max_position_embeddings": 32768}
_QWEN_SMALL = {"vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True}
_LLAMA = {"vocab_size": 128256, "max_position_embeddings": 131072, "num_key_value_heads": 8}


def _sizes(width: int, layers: int, heads: int, feed_forward: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        **more,
    }


_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
_QWEN_SHAPES = {
    "0.5B": _sizes(896, 24, 14, 4864, num_key_value_heads=2, **_QWEN_SMALL),
    "1.5B": _sizes(1536, 28, 12, 8960, num_key_value_heads=2, **_QWEN_SMALL),
    "3B": _sizes(2048, 36, 16, 11008, num_key_value_heads=2, **_QWEN_SMALL),
    "7B": _sizes(3584, 28, 28, 18944, num_key_value_heads=4, **_QWEN),
    "14B": _sizes(5120, 48, 40, 13824, num_key_value_heads=8, **_QWEN),
    "32B": _sizes(5120, 64, 40, 27648, num_key_value_heads=8, **_QWEN),
    "72B": _sizes(8192, 80, 64, 29568, num_key_value_heads=8, **_QWEN),
}
_LLAMA_SHAPES = {
    "3.1-8B": _sizes(4096, 32, 32, 14336, **_LLAMA),
    "3.1-70B": _sizes(8192, 80, 64, 28672, **_LLAMA),
    "3.2-1B": _sizes(2048, 16, 32, 8192, tie_word_embeddings=True, **_LLAMA),
    "3.2-3B": _sizes(3072, 28, 24, 8192, tie_word_embeddings=True, **_LLAMA),
    "3.3-70B": _sizes(8192, 80, 64, 28672, **_LLAMA),
}
_GPT2_SHAPES = {
    "gpt2": {},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-base": ("roberta", _sizes(768, 12, 12, 3072, **_ROBERTA)),
    "roberta-large": ("roberta", _sizes(1024, 24, 16, 4096, **_ROBERTA)),
    **{name: ("gpt2", shape) for name, shape in _GPT2_SHAPES.items()},
    **{f"Qwen/Qwen2.5-{size}": ("qwen2", shape) for size, shape in _QWEN_SHAPES.items()},
    **{f"meta-llama/Llama-{size}": ("llama", shape) for size, shape in _LLAMA_SHAPES.items()},
}
"""transformers' model type and the arguments of its configuration, by name on the Hugging Face hub."""

_SUFFIXES = ("-Instruct",)
_OWNERS = ("openai-community/", "FacebookAI/")


def published(name: str) -> tuple[str, dict[str, Any]] | None:
    """Return the type and sizes of a published model, None for a name that the table does not have."""
    for owner in _OWNERS:
        name = name.removeprefix(owner)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return SHAPES.get(name)


def with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """Return a copy of a model's configuration with another number of layers, of the kinds of its first ones."""
    changed = copy.deepcopy(config)
    text = changed.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds:
        text.layer_types = [kinds[index % len(kinds)] for index in range(layers)]
    text.num_hidden_layers = layers
    return changed
