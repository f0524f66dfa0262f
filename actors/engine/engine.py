"""One vLLM engine: prompts of token ids in, actions with behaviour log-probabilities and policy versions out.

Invariants:
- only the temperature shapes the sampling distribution (no top-p, no top-k, none of the model's sampling defaults), and
  the returned log-probabilities are those of that distribution;
- the stop token is part of the action;
- each token carries the policy version that sampled it, also if the weights change in the middle of an action;
- a change of weights drops everything that was cached under the old ones.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from actors.config import EngineConfig, SamplingConfig
from actors.engine.launch import EXTENSION, engine_arguments, set_environment
from actors.engine.memory_kills import memory_kills
from actors.engine.streamed_weights import StreamedWeights
from actors.errors import EngineDied, EngineStartError, PromptTooLong, WeightTransferError
from buffer.flight.memory_stream import Offer
from buffer.quick_imports import quick_imports
from buffer.rollout_records import FreshActions
from buffer.telemetry.collectors import BusyClock

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

_STAGING_S = 0.005
"""Seconds between two questions whether weights are loaded; each takes a turn between two steps of the engine."""


class VllmEngine:
    """The engine of one worker. Create it by `await VllmEngine.start(...)` and use it on that event loop only.

    version: the current policy version; window: the context window in tokens; busy: runs while a request is in flight;
    died: set when a process of the engine has ended.
    """

    def __init__(
        self,
        llm: AsyncLLM,
        name: str,
        stop_token_ids: Sequence[int],
        version: int,
        thought_end: int | None,
        stop_text: str | None,
    ) -> None:
        self.name = name
        self.version = version
        self.window: int = llm.model_config.max_model_len
        self.busy = BusyClock()
        self.died = asyncio.Event()
        self._llm = llm
        self._stop_token_ids = tuple(stop_token_ids)
        self._thought_end = thought_end
        self._stop_text = stop_text
        self._request_ids = itertools.count()
        self._streamed = StreamedWeights()
        self._memory_kills = memory_kills()
        self._handles = [os.pidfd_open(process.pid) for process in llm.engine_core.resources.engine_manager.processes]
        for handle in self._handles:
            asyncio.get_running_loop().add_reader(handle, self._ended)

    @classmethod
    async def start(
        cls,
        model: str,
        config: EngineConfig,
        *,
        stop_token_ids: Sequence[int],
        seed: int,
        version: int = 0,
        thought_end: int | None = None,
        stop_text: str | None = None,
        name: str = "engine",
        extension: str = EXTENSION,
    ) -> VllmEngine:
        """Start the engine's processes and load `model`, a Hugging Face folder or name.

        Loading blocks the event loop. Raises EngineStartError.

        Args:
            thought_end: the token that ends a thought, where `SamplingConfig.thought_tokens` counts; None if there is
                none.
            stop_text: text that ends an action, beside the stop tokens; None if there is none.
            extension: class that vLLM mixes into its worker class; tests install faulty weight receivers through it.
        """
        with quick_imports():
            set_environment(config)
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

        try:
            llm = AsyncLLM.from_engine_args(
                AsyncEngineArgs(**engine_arguments(model, config, seed, extension, tokenizer=stop_text is not None))
            )
        except (ValueError, RuntimeError, OSError) as error:
            # vLLM's processes log the cause to standard error; this error may only say that they failed.
            raise EngineStartError(
                f"{name}: the engine for {model!r} did not start: {error}. The worker's log contains the cause, "
                "usually too little memory for rollout.engine.kv_cache_gib"
            ) from error
        engine = cls(llm, name, stop_token_ids, version, thought_end, stop_text)
        await engine._call(llm.update_weight_version(str(version)))
        # Otherwise the first request makes this call, which never returns if the engine dies during it.
        await engine._call(llm.get_supported_tasks())
        try:
            # An engine that cannot decode, for example because vLLM's attention lacks a kernel for the model's head
            # size, must fail here. Otherwise it would die at the first episode, and again after each restart.
            await engine.generate(stop_token_ids[:1] or [0], 1, SamplingConfig(max_tokens=1))
        except EngineDied as error:
            raise EngineStartError(
                f"{name}: the engine for {model!r} died at its first step; the worker's log in the Ray session "
                "folder contains the cause, on a CPU usually a head size that vLLM's attention does not support"
            ) from error
        return engine

    async def generate(
        self,
        prompt: Sequence[int],
        n: int,
        sampling: SamplingConfig,
        *,
        greedy: bool = False,
        logprobs: bool = True,
    ) -> FreshActions:
        """Sample `n` actions after one prompt. The end of the context window cuts an action.

        With `sampling.thought_tokens`, a first request samples the thoughts, and each thought that ended gets a second
        one for its answer. So every token is sampled, and a thought that does not end is cut.

        Without `logprobs` the engine neither computes nor sends log-probabilities.

        Raises PromptTooLong if the context window leaves no room for a token, and EngineDied.
        """
        room = self.window - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"{self.name}: a prompt of {len(prompt)} tokens leaves no room for an action in the context window of "
                f"{self.window} tokens; raise rollout.engine.max_model_len if the model allows, shorten the "
                "environment's observations, or lower its max_turns"
            )
        temperature = 0.0 if greedy else sampling.temperature
        stop, end, text = self._stop_token_ids, self._thought_end, self._stop_text
        if sampling.thought_tokens is None or end is None:
            params = _sampling_params(temperature, min(sampling.max_tokens, room), n, stop, logprobs, None, text)
            return _actions([[output] for output in await self._request(list(prompt), params)])
        params = _sampling_params(temperature, min(sampling.thought_tokens, room), n, (*stop, end), logprobs, None)

        async def with_answer(thought: Any) -> list[Any]:
            left = room - len(thought.token_ids)
            if thought.token_ids[-1] != end or left < 1:
                return [thought]
            answer = _sampling_params(temperature, min(sampling.max_tokens, left), 1, stop, logprobs, None)
            return [thought, *await self._request([*prompt, *thought.token_ids], answer)]

        return _actions(await asyncio.gather(*map(with_answer, await self._request(list(prompt), params))))

    async def probe(
        self, tokens: Sequence[int] | np.ndarray, temperature: float, positions: np.ndarray | None = None
    ) -> np.ndarray:
        """Return log p(tokens[i] | tokens[:i]) at `temperature` for each i in `positions`, by default all from 1 on.

        The result is float32 [positions].

        Each position is a request of its own, which passes the sampler and the prefix cache as actions do. The answer
        therefore reveals a stale output head, a stale cache and a wrong temperature. (vLLM's prompt_logprobs reveal
        neither of the last two: they bypass the cache and ignore the temperature.) The longest prefix comes first, and
        the others find its blocks in the cache.
        """
        ids = [int(token) for token in tokens]

        async def logprob(i: int) -> float:
            params = _sampling_params(temperature, 1, 1, self._stop_token_ids, False, ids[i])
            (output,) = await self._request(ids[:i], params)
            return float(output.logprobs.logprobs[output.logprobs.token_ids.index(ids[i])])

        asked = range(1, len(ids)) if positions is None else positions.tolist()
        last = await logprob(asked[-1])
        return np.array([*await asyncio.gather(*map(logprob, asked[:-1])), last], np.float32)

    # Weights. Between `start_weight_update` and `finish_weight_update` requests are frozen, not lost.

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        self._streamed.clear()
        await self._call(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info)))

    async def fetch_weights(self, offer: Offer, timeout_s: float) -> None:
        """Copy weights from the learner's host to this one, while requests go on. Raises WeightsUnreachable."""
        await asyncio.to_thread(self._streamed.fetch, offer, timeout_s)

    async def stage_weights(self, updates: list[dict[str, Any]]) -> None:
        """Load the weights of the updates that follow while requests go on with the old ones, if the model allows."""
        located = [self._streamed.located(update) for update in updates]
        begun: list[bool] = await self._call(self._llm.collective_rpc("stage_weights", args=(located,)))
        if not all(begun):
            return
        while not all(await self._call(self._llm.collective_rpc("weights_staged"))):
            await asyncio.sleep(_STAGING_S)

    async def start_weight_update(self) -> None:
        """Freeze requests, drop the key-value cache, and prepare for new weights.

        Frozen requests keep their tokens; the engine recomputes their keys and values under the new weights.
        """
        # AsyncLLM.pause_generation makes this call and then sleeps for 20 ms: three copies of 10M parameters.
        await self._call(self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=True))
        await self._call(self._llm.start_weight_update())

    async def update_weights(self, update_info: Any) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        if isinstance(update_info, dict):
            update_info = self._streamed.located(update_info)
        await self._call(self._llm.update_weights(WeightTransferUpdateRequest(update_info)))

    async def finish_weight_update(self, version: int) -> None:
        """Install the weights as policy version `version` and resume requests."""
        await self._call(self._llm.finish_weight_update(weight_version=str(version)))
        self.version = version
        await self._call(self._llm.resume_generation())

    async def install_weights(self, installed: tuple[list[dict[str, Any]], int]) -> None:
        """Take (updates, version) in one pause, without a way through the pool between its calls."""
        updates, version = installed
        await self.start_weight_update()
        for update in updates:
            await self.update_weights(update)
        await self.finish_weight_update(version)

    def why_died(self) -> str:
        """Return why the engine's process ended, as far as the kernel says."""
        kills = memory_kills()
        if kills is None or self._memory_kills is None or kills <= self._memory_kills:
            return "the engine's process ended"
        return (
            "the kernel killed the engine's process at the memory limit of the container or the job; raise the limit, "
            "or lower rollout.engine.kv_cache_gib"
        )

    def shutdown(self) -> None:
        self._ended()
        self._llm.shutdown(timeout=5.0)

    async def _request(self, prompt: list[int], params: SamplingParams) -> list[Any]:
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        queue = None
        try:
            with self.busy:
                queue = await self._llm.add_request(str(next(self._request_ids)), tokens_input(prompt), params)
                result = queue.get_nowait() or await queue.get()
        except asyncio.CancelledError:
            if queue is not None:
                await self._llm.abort(queue.request_id, internal=True)
            raise
        except EngineDeadError as error:
            raise EngineDied(f"{self.name}: the engine's process ended with requests in flight") from error
        return result.outputs

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        """Await one of vLLM's calls. Raises EngineDied if the engine dies meanwhile; vLLM would keep waiting."""
        from vllm.v1.engine.exceptions import EngineDeadError

        task = asyncio.ensure_future(call)
        death = asyncio.ensure_future(self.died.wait())
        waited: list[asyncio.Future[Any]] = [task, death]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise EngineDied(f"{self.name}: the engine's process ended during a call")
            return task.result()
        except EngineDeadError as error:
            raise EngineDied(f"{self.name}: the engine's process has ended") from error
        except RuntimeError as error:
            raise WeightTransferError(f"{self.name}: {error}") from error
        finally:
            task.cancel()
            death.cancel()

    def _ended(self) -> None:
        self.died.set()
        loop = asyncio.get_running_loop()
        for handle in self._handles:
            loop.remove_reader(handle)
            os.close(handle)
        self._handles = []


@functools.cache
def _sampling_params(
    temperature: float,
    max_tokens: int,
    n: int,
    stop_token_ids: tuple[int, ...],
    logprobs: bool,
    target: int | None,
    stop_text: str | None = None,
) -> SamplingParams:
    """Return sampling parameters. With a `target`, the answer contains the log-probability of that token."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=n,
        temperature=temperature,
        max_tokens=max_tokens,
        logprobs=0 if logprobs else None,
        logprob_token_ids=None if target is None else [target],
        flat_logprobs=True,
        stop_token_ids=list(stop_token_ids),
        # stop_token_ids include the tokenizer's end of text.
        ignore_eos=True,
        stop=stop_text,
        include_stop_str_in_output=True,
        detokenize=stop_text is not None,
        skip_special_tokens=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # These parameters never change, so vLLM need not copy them for each request.
        skip_clone=True,
    )


def _actions(actions: Sequence[Sequence[Any]]) -> FreshActions:
    """Return the actions of one state, each given by the outputs that follow one another in it."""
    outputs = [output for action in actions for output in action]
    spans = [span for output in outputs for span in output.weight_versions]
    lengths = [sum(len(output.token_ids) for output in action) for action in actions]
    return FreshActions(
        tokens=np.array([token for output in outputs for token in output.token_ids], np.int32),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        logprobs=np.array([x for o in outputs if o.logprobs is not None for x in o.logprobs.logprobs], np.float32),
        versions=np.repeat(np.array([int(s.version) for s in spans], np.int32), [s.end - s.start for s in spans]),
        counts=np.array([len(actions)], np.int32),
    )
