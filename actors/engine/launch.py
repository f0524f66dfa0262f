"""Environment variables and arguments with which vLLM starts an engine."""

from __future__ import annotations

import logging
import os
from typing import Any

from actors.config import EngineConfig

EXTENSION = "actors.engine.extension.EngineExtension"
"""The class that vLLM mixes into its worker class."""
OWNER_VARIABLE = "ARCHER_ENGINE_OWNER"
"""The environment variable with the id of the process that starts engines (`actors.engine.extension`)."""

# vLLM's default on a CPU, 128 tokens, is longer than most states of a text game, and prefixes share whole blocks only.
# Below 32 the CPU's attention kernel slows down.
CPU_BLOCK_SIZE = 32


def set_environment(config: EngineConfig) -> None:
    """Set the environment variables that vLLM and its processes read; the user's own values take precedence."""
    defaults = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        # Engines share the machine with each other and with the learner. The operating system places their threads
        # better than each engine, which would bind itself to the same core as the others.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    # vLLM logs during its import, before it reads its own log level.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        if config.tensor_parallel == 1:
            # The model then runs in the engine's own process, which saves a process and a hop per step.
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        if config.enforce_eager:
            # Otherwise the first request compiles a three-line kernel for ten seconds.
            os.environ["TORCHDYNAMO_DISABLE"] = "1"


def engine_arguments(
    model: str, config: EngineConfig, seed: int, extension: str, *, tokenizer: bool = False
) -> dict[str, Any]:
    """Return the keyword arguments of vLLM's `AsyncEngineArgs`. Only a stop text needs the `tokenizer`."""
    from vllm.config.weight_transfer import WeightTransferConfig
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    gib = config.kv_cache_gib or (1.0 if on_cpu else None)
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": config.dtype,
        "seed": seed,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": not tokenizer,
        "use_tqdm_on_load": False,
        # The model's own sampling defaults (such as top_k=50) must not change the policy.
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": WeightTransferConfig(backend=config.weight_transfer),
        "worker_extension_cls": extension,
        "max_model_len": config.max_model_len,
        "block_size": config.block_size or (CPU_BLOCK_SIZE if on_cpu else None),
        "kv_cache_memory_bytes": None if gib is None else int(gib * 2**30),
        "gpu_memory_utilization": None if on_cpu else config.gpu_memory_utilization,
        "distributed_executor_backend": "uni" if on_cpu and config.tensor_parallel == 1 else None,
    }
    # Without an argument vLLM uses its own default.
    return {name: value for name, value in arguments.items() if value is not None}
