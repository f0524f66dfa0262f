"""One vLLM engine: prompts of token ids in, actions with their behaviour log-probabilities and versions out.

Invariants:
- nothing but temperature shapes the distribution sampled from (no top-p, no top-k, none of the model's own sampling
  defaults), and the log-probabilities returned are those of that distribution;
- the stop token is part of the action;
- each token carries the policy version that wrote it, also where weights changed in the middle of an action;
- what is cached of old weights is dropped when weights change.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from actors.config import EngineConfig, SamplingConfig
from actors.engine.process_guard import own_children
from actors.errors import EngineDied, EngineStartError, PromptTooLong, WeightTransferError

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")
GIB = 1 << 30
EXTENSION = "actors.engine.extension.EngineExtension"

# A block is what prefixes share: vLLM's own choice on a CPU, 128, is longer than most states of a text game. Below
# 32 the CPU's attention kernel slows down.
CPU_BLOCK_SIZE = 32


@dataclass(slots=True)
class Completion:
    """One action: tokens with the stop token, log-probabilities of the distribution sampled from (none where they were
    not asked for), versions."""

    token_ids: list[int]
    logprobs: list[float]
    versions: list[int]
    stop_reason: Literal["stop", "length"]


class VllmEngine:
    """An engine of one worker. Make it with `await VllmEngine.start(...)`; use it from that event loop only."""

    def __init__(self, llm: AsyncLLM, name: str, stop_token_ids: Sequence[int], version: int) -> None:
        self.name = name
        self.version = version
        self.window: int = llm.model_config.max_model_len
        self.died = asyncio.Event()
        self._llm = llm
        self._stop_token_ids = list(stop_token_ids)
        self._params: dict[tuple[float, int, int, bool, int | None], SamplingParams] = {}
        self._request_ids = itertools.count()
        self._watch_processes()

    @classmethod
    async def start(
        cls,
        model: str,
        config: EngineConfig,
        *,
        stop_token_ids: Sequence[int],
        seed: int,
        version: int = 0,
        name: str = "engine",
        extension: str = EXTENSION,
    ) -> VllmEngine:
        """Start the engine's processes and load `model`, a Hugging Face folder or name.

        Blocks the event loop while it loads. Raises EngineStartError.
        """
        _set_environment(config)
        own_children()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**_arguments(model, config, seed, extension)))
        except (ValueError, RuntimeError, OSError) as error:
            # vLLM's processes log the cause to standard error; what reaches us may only say that they failed.
            raise EngineStartError(
                f"{name}: the engine for {model!r} did not start: {error}. The lines above it in the worker's log "
                "say why; too little memory for rollout.engine.kv_cache_gib is the usual cause"
            ) from error
        engine = cls(llm, name, stop_token_ids, version)
        await engine._call(llm.update_weight_version(str(version)))
        # Else the first request asks for this, and hangs where the engine dies just then.
        await engine._call(llm.get_supported_tasks())
        await engine._first_step(model)
        return engine

    async def generate(
        self,
        prompt_token_ids: Sequence[int],
        n: int,
        sampling: SamplingConfig,
        *,
        greedy: bool = False,
        logprobs: bool = True,
    ) -> list[Completion]:
        """`n` actions for one prompt. An action is cut short where the window ends.

        Without `logprobs` the actions' are empty, and the engine is spared computing and sending them.

        Raises PromptTooLong where the window leaves no room for a token, EngineDied.
        """
        room = self.window - len(prompt_token_ids)
        if room < 1:
            raise PromptTooLong(
                f"{self.name}: a prompt of {len(prompt_token_ids)} tokens leaves no room for an action in the model's "
                f"window of {self.window}; raise rollout.engine.max_model_len if the model allows, shorten the "
                "environment's observations, or set its max_turns lower"
            )
        temperature = 0.0 if greedy else sampling.temperature
        params = self._sampling_params(temperature, min(sampling.max_tokens, room), n, logprobs=logprobs)
        return [self._completion(output) for output in await self._request(list(prompt_token_ids), params)]

    async def probe(self, tokens: Sequence[int], temperature: float) -> np.ndarray:
        """log p(tokens[i + 1] | tokens[: i + 1]) at `temperature`, float32 [length - 1].

        Each position is asked for through the sampler and with its prefix cached, the way actions are written, so
        that a stale head, a stale cache or a wrong temperature shows. (vLLM's prompt_logprobs would show none of the
        last two: they skip the cache and know no temperature.)
        """
        ids = [int(token) for token in tokens]
        outputs = await asyncio.gather(
            *(
                self._request(ids[: i + 1], self._sampling_params(temperature, 1, 1, target=ids[i + 1]))
                for i in range(len(ids) - 1)
            )
        )
        logprobs = np.empty(len(outputs), np.float32)
        for i, (output,) in enumerate(outputs):
            flat = output.logprobs
            logprobs[i] = flat.logprobs[flat.token_ids.index(ids[i + 1])]
        return logprobs

    # Weights. Between `start_weight_update` and `finish_weight_update` requests are frozen, not lost.

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._call(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info)))

    async def shutdown_weight_transfer_engine(self) -> None:
        await self._call(self._llm.shutdown_weight_transfer_engine())

    async def start_weight_update(self) -> None:
        """Freeze requests, drop all cached keys and values, and make ready for new weights.

        Frozen requests keep their tokens; their keys and values are computed anew under the new weights.
        """
        await self._call(self._llm.pause_generation(mode="keep", clear_cache=True))
        await self._call(self._llm.start_weight_update())

    async def update_weights(self, update_info: Any) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._call(self._llm.update_weights(WeightTransferUpdateRequest(update_info)))

    async def finish_weight_update(self, version: int) -> None:
        """Put the weights in place as policy version `version` and let requests go on."""
        await self._call(self._llm.finish_weight_update(weight_version=str(version)))
        self.version = version
        await self._call(self._llm.resume_generation())

    async def rpc(self, method: str, *args: Any) -> list[Any]:
        """Call a method of the engine's worker processes."""
        return await self._call(self._llm.collective_rpc(method, args=args))

    def shutdown(self) -> None:
        """End the engine's processes."""
        self._unwatch()
        self._llm.shutdown(timeout=5.0)

    # Parts

    async def _first_step(self, model: str) -> None:
        """Write one token. An engine that can't, as where its attention has no kernel for the model's head size, would
        die at the first episode instead, and again after each restart."""
        try:
            await self.generate(self._stop_token_ids[:1], 1, SamplingConfig(max_tokens=1))
        except EngineDied as error:
            raise EngineStartError(
                f"{self.name}: the engine for {model!r} died at its first step; the worker's log in the Ray session "
                "folder says why. A head size that vLLM's attention lacks is the usual cause on a CPU"
            ) from error

    async def _request(self, prompt: list[int], params: SamplingParams) -> list[Any]:
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        queue = None
        try:
            queue = await self._llm.add_request(str(next(self._request_ids)), tokens_input(prompt), params)
            result = queue.get_nowait() or await queue.get()
        except asyncio.CancelledError:
            if queue is not None:
                await self._llm.abort(queue.request_id, internal=True)
            raise
        except EngineDeadError as error:
            raise EngineDied(f"{self.name}: the engine's process ended with requests in flight") from error
        return result.outputs

    def _completion(self, output: Any) -> Completion:
        versions = []
        for span in output.weight_versions:
            versions += [int(span.version)] * (span.end - span.start)
        return Completion(
            token_ids=list(output.token_ids),
            logprobs=[] if output.logprobs is None else output.logprobs.logprobs,
            versions=versions,
            stop_reason="stop" if output.finish_reason == "stop" else "length",
        )

    def _sampling_params(
        self, temperature: float, max_tokens: int, n: int, *, logprobs: bool = True, target: int | None = None
    ) -> SamplingParams:
        key = (temperature, max_tokens, n, logprobs, target)
        params = self._params.get(key)
        if params is None:
            from vllm import SamplingParams
            from vllm.sampling_params import RequestOutputKind

            params = SamplingParams(
                n=n,
                temperature=temperature,
                max_tokens=max_tokens,
                logprobs=0 if logprobs and target is None else None,
                logprob_token_ids=None if target is None else [target],
                flat_logprobs=True,
                stop_token_ids=self._stop_token_ids,
                # The stop tokens are ours to name; the tokenizer's end of text is among them.
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                # These parameters never change, so that vLLM need not copy them for each request.
                skip_clone=True,
            )
            self._params[key] = params
        return params

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        """Await one of vLLM's calls; an engine that dies meanwhile ends the wait, which vLLM's own does not."""
        from vllm.v1.engine.exceptions import EngineDeadError

        task = asyncio.ensure_future(call)
        death = asyncio.ensure_future(self.died.wait())
        waited: set[Awaitable[Any]] = {task, death}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
            if not task.done():
                raise EngineDied(f"{self.name}: the engine's process ended while it was called")
            return task.result()
        except EngineDeadError as error:
            raise EngineDied(f"{self.name}: the engine's process has ended") from error
        except EngineDied:
            raise
        except RuntimeError as error:
            raise WeightTransferError(f"{self.name}: {error}") from error
        finally:
            task.cancel()
            death.cancel()

    def _watch_processes(self) -> None:
        loop = asyncio.get_running_loop()
        self._handles = []
        for process in self._llm.engine_core.resources.engine_manager.processes:
            handle = os.pidfd_open(process.pid)
            self._handles.append(handle)
            loop.add_reader(handle, self._ended)

    def _ended(self) -> None:
        self.died.set()
        self._unwatch()

    def _unwatch(self) -> None:
        loop = asyncio.get_running_loop()
        for handle in self._handles:
            loop.remove_reader(handle)
            os.close(handle)
        self._handles = []


def _set_environment(config: EngineConfig) -> None:
    """What vLLM and its processes read from the environment; what the user has set stays."""
    defaults = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        # Engines share the machine with each other and with the learner: the operating system places threads better
        # than each engine binding itself to the same core.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # What vLLM says while it is imported comes before it reads its own log level.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        if config.tensor_parallel == 1:
            # The model then runs in the engine's own process: one process and one hop a step fewer.
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        if config.enforce_eager:
            # Else the first request compiles a three-line kernel for ten seconds.
            os.environ["TORCHDYNAMO_DISABLE"] = "1"


def _arguments(model: str, config: EngineConfig, seed: int, extension: str) -> dict[str, Any]:
    from vllm.config.weight_transfer import WeightTransferConfig
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": model,
        "dtype": config.dtype,
        "seed": seed,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
        # The model's own defaults (top_k=50 and the like) must not shape the policy.
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": WeightTransferConfig(backend=config.weight_transfer),
        "worker_extension_cls": extension,
    }
    if config.max_model_len is not None:
        arguments["max_model_len"] = config.max_model_len
    gib = config.kv_cache_gib
    if current_platform.is_cpu():
        arguments["block_size"] = config.block_size or CPU_BLOCK_SIZE
        arguments["kv_cache_memory_bytes"] = int((gib or 1.0) * GIB)
        if config.tensor_parallel == 1:
            arguments["distributed_executor_backend"] = "uni"
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        if gib is not None:
            arguments["kv_cache_memory_bytes"] = int(gib * GIB)
        if config.block_size is not None:
            arguments["block_size"] = config.block_size
    return arguments
