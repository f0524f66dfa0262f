"""The memory of an engine: weights, key-value cache, and what a step of vLLM takes beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig

from actors.config import EngineConfig
from archer.errors import RunError
from archer.planning.counting import COUNTED, PeakBytes
from archer.planning.models import count, with_layers
from archer.planning.ranks import CONTEXT, TRANSFER
from archer.planning.stage import Memory

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CPU_CACHE_GIB = 1.0


def engine_memory(
    mode: FakeTensorMode, engine: EngineConfig, config: PreTrainedConfig, *, window: int, backend: str, gpu_gib: float
) -> Memory:
    """Return the memory of an engine on each of its GPUs, or in its process with `gpu_gib` 0.

    Args:
        window: tokens of the longest sequence.
        backend: how weights arrive, `RunConfig.broadcast_backend`.
        gpu_gib: memory of a GPU in GiB.

    Raises:
        RunError: the key-value cache has no room for one sequence of `window` tokens.
    """
    size, split = _bytes(engine, config), engine.tensor_parallel
    memory = Memory()
    memory.device["weights"] = count(config) * size / split
    # Each GPU of the engine computes its share of the heads and of the feed-forward layers.
    memory.device["activations"] = _step_bytes(mode, engine, config) / split
    if gpu_gib:
        if backend in ("nccl", "ipc"):
            memory.device["broadcast buffers"] = TRANSFER
        memory.device["CUDA context"] = CONTEXT
    else:
        memory.device["new weights, while they are loaded"] = memory.device["weights"]
    a_token = cache_bytes_per_token(config) * size / min(split, _kv_heads(config))
    if engine.kv_cache_gib is not None or not gpu_gib:
        cache = (engine.kv_cache_gib or _CPU_CACHE_GIB) * 2**30
    else:
        # The buffers of the broadcast come after vLLM has measured what is free.
        taken = memory.total - memory.device.get("broadcast buffers", 0.0)
        cache = max(engine.gpu_memory_utilization * gpu_gib * 2**30 - taken, 0.0)
    memory.device["key-value cache"] = cache
    if cache < window * a_token:
        raise RunError(
            f"an engine has {cache / 2**30:.1f} GiB for its key-value cache, and one sequence of {window} tokens takes "
            f"{window * a_token / 2**30:.1f} GiB ({a_token / 1024:.0f} KiB a token)"
            + _arithmetic(memory, engine, gpu_gib)
            + "; raise rollout.engine.tensor_parallel, gpu_memory_utilization or kv_cache_gib, or lower max_model_len"
        )
    memory.notes.append(
        f"its key-value cache holds {cache / a_token:,.0f} tokens ({a_token / 1024:.0f} KiB each): "
        f"{cache / a_token / window:.1f} sequences of {window} tokens"
    )
    return memory


def _arithmetic(memory: Memory, engine: EngineConfig, gpu_gib: float) -> str:
    if not gpu_gib or engine.kv_cache_gib is not None:
        return ""
    parts = ", ".join(f"{name} {amount / 2**30:.1f}" for name, amount in memory.device.items() if name[0] != "k")
    return f": {engine.gpu_memory_utilization:g} of {gpu_gib:g} GiB, less {parts}"


def cache_bytes_per_token(config: PreTrainedConfig) -> float:
    """Return the numbers that one token has in the caches of all layers: a key and a value for each head."""
    text = config.get_text_config()
    return 2.0 * text.num_hidden_layers * _kv_heads(config) * _head_width(text)


def _kv_heads(config: PreTrainedConfig) -> int:
    text: Any = config.get_text_config()
    return int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)


def _head_width(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _bytes(engine: EngineConfig, config: PreTrainedConfig) -> int:
    if engine.dtype != "auto":
        return _BYTES[engine.dtype]
    found = getattr(config, "dtype", None)
    return found.itemsize if isinstance(found, torch.dtype) else 2


def _step_bytes(mode: FakeTensorMode, engine: EngineConfig, config: PreTrainedConfig) -> float:
    """Return the peak of a step of `max_num_batched_tokens`, with logits of `max_num_seqs` tokens in float32.

    The layers run one after the other and keep nothing, so that one layer has the peak of all.
    """
    dtype = {4: torch.float32, 2: torch.bfloat16}[_bytes(engine, config)]
    with mode, torch.no_grad():
        model: nn.Module = AutoModelForCausalLM.from_config(
            with_layers(config, 1), dtype=dtype, attn_implementation=COUNTED
        ).eval()
        ids = torch.zeros(1, engine.max_num_batched_tokens, dtype=torch.long)
        known = [*model.parameters(), *model.buffers()]
        with PeakBytes(known) as counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
        vocabulary = config.get_text_config().vocab_size
    return max(float(counter.peak), 3.0 * 4 * engine.max_num_seqs * vocabulary)
