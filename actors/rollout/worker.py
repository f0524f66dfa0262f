"""The rollout worker: one engine, many episodes at once, on one event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.actor import ActorHandle

import envs
from actors.config import RolloutConfig
from actors.engine.engine import EXTENSION, VllmEngine
from actors.errors import EnvFailureLimit, PromptTooLong, RenderError
from actors.metrics import WorkerMetrics
from actors.rollout.critic_choice import Chooser
from actors.rollout.episode import run_episode
from actors.rollout.renderer import make_renderer
from actors.rollout.results import EpisodeResult
from actors.rollout.storing import Storer
from buffer.rollout_records import FreshActions, ProbeAnswer

if TYPE_CHECKING:
    from buffer.client.ray_client import ReplayClient


@dataclass(frozen=True)
class WorkerArgs:
    """All that a worker gets from the run.

    model: Hugging Face folder or name that engines start from.
    version: the policy version that `model` is.
    scorer: an actor that picks among `candidates` actions (`actors.rollout.critic_choice`); None plays the policy.
    extension: class mixed into vLLM's worker; tests put faulty receivers there.
    """

    config: RolloutConfig
    model: str
    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    replay: ReplayClient | None = None
    run: str = "run"
    seed: int = 0
    version: int = 0
    scorer: ActorHandle | None = None
    candidates: int = 1
    extension: str = EXTENSION


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself when it has come up."""

    metrics: str
    window: int
    pid: int


class RolloutWorker:
    """An async Ray actor; all methods run on its event loop. `RolloutPool` makes and calls it."""

    def __init__(self, args: WorkerArgs, name: str, seed: int) -> None:
        self._args = args
        self._name = name
        self._seed = seed
        self._idle_envs: list[envs.AsyncEnv] = []
        self._failures_in_row = 0
        self._engine: VllmEngine
        self._metrics: WorkerMetrics

    async def start(self) -> WorkerInfo:
        """Bring up environment, renderer, engine and metrics."""
        from transformers import AutoTokenizer

        # Made first: a mistake in the task's arguments should not wait for the engine.
        self._idle_envs.append(self._make_env())
        self._renderer = make_renderer(self._args.config.renderer, AutoTokenizer.from_pretrained(self._args.model))
        self._storer = None if self._args.replay is None else Storer(self._args.replay)
        self._chooser = None
        if self._args.scorer is not None:
            self._chooser = Chooser(self._args.scorer, self._args.candidates, self._args.config.request_timeout_s)
        self._engine = await VllmEngine.start(
            self._args.model,
            self._args.config.engine,
            stop_token_ids=self._renderer.stop_token_ids,
            seed=self._seed,
            version=self._args.version,
            name=self._name,
            extension=self._args.extension,
        )
        self._metrics = WorkerMetrics()
        self._metrics.version.set(self._engine.version)
        address = f"{ray.util.get_node_ip_address()}:{self._metrics.serve()}"
        return WorkerInfo(address, self._engine.window, os.getpid())

    async def watch(self) -> str:
        """Returns only when the engine has died, and says so."""
        await self._engine.died.wait()
        return f"the engine process of {self._name} ended"

    # Episodes and actions

    async def play(self, seed: int, greedy: bool, store: bool, group: int = 1) -> EpisodeResult:
        """Play one episode, of environment seed `seed // group`, and, where `store`, return once replay has it.

        A failure of the environment drops the episode. Raises EnvFailureLimit, EngineDied, and what replay raises.
        """
        with self._metrics.playing.track_inprogress():
            result = await self._play(seed, greedy, store, group)
        self._metrics.count(result)
        if result.failure is None:
            self._failures_in_row = 0
            return result
        self._failures_in_row += 1
        if self._failures_in_row >= self._args.config.env_failure_limit:
            raise EnvFailureLimit(
                f"{self._name}: {self._failures_in_row} episodes in a row failed in environment "
                f"{self._args.env_id!r}; the last one, of seed {seed}: {result.failure}. Mend the environment, or "
                "raise rollout.env_failure_limit if single failures are expected"
            )
        return result

    async def _play(self, seed: int, greedy: bool, store: bool, group: int) -> EpisodeResult:
        env = self._idle_envs.pop() if self._idle_envs else self._make_env()
        try:
            played = await run_episode(
                env,
                self._engine,
                self._renderer,
                self._args.config.sampling,
                seed=seed // group,
                episode_id=f"{self._args.run}-{'greedy' if greedy else 'sampled'}-{seed}",
                worker=self._name,
                greedy=greedy,
                chooser=self._chooser,
            )
        except (envs.EnvError, PromptTooLong, RenderError) as error:
            await self._discard(env)
            return EpisodeResult(seed=seed, failure=f"{type(error).__name__}: {error}")
        self._idle_envs.append(env)
        episode = played.episode
        if store and self._storer is not None:
            finished = time.monotonic()
            await self._storer.store(episode)
            self._metrics.stored_wait.observe(time.monotonic() - finished)
        return EpisodeResult(
            seed=seed,
            ret=episode.ret,
            success=episode.success,
            turns=episode.turns,
            invalid_actions=played.invalid_actions,
            action_tokens=len(episode.logprobs),
            version=float(episode.versions.mean()),
            window_truncated=played.window_truncated,
            stored=store and self._storer is not None,
        )

    async def act(self, tokens: np.ndarray, offsets: np.ndarray, counts: np.ndarray, logprobs: bool) -> FreshActions:
        """`counts` actions for each state.

        tokens: int32 [total] of all states; offsets: int64 [states + 1]; counts: int32 [states].
        """
        flat, bounds = tokens.tolist(), offsets.tolist()
        states = [flat[a:b] for a, b in itertools.pairwise(bounds)]
        sampling = self._args.config.sampling
        results = await asyncio.gather(
            *(
                self._engine.generate(state, n, sampling, logprobs=logprobs)
                for state, n in zip(states, counts.tolist(), strict=True)
            )
        )
        actions = [action for result in results for action in result]
        lengths = [len(action.token_ids) for action in actions]
        self._metrics.fresh_actions.inc(len(actions))
        self._metrics.fresh_tokens.inc(sum(lengths))
        return FreshActions(
            tokens=np.array([token for a in actions for token in a.token_ids], np.int32),
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            logprobs=np.array([logprob for a in actions for logprob in a.logprobs], np.float32),
            versions=np.array([version for a in actions for version in a.versions], np.int32),
            counts=counts,
        )

    async def probe(self, tokens: np.ndarray) -> ProbeAnswer:
        """This engine's log-probabilities of a sequence, with its version."""
        logprobs = await self._engine.probe(tokens.tolist(), self._args.config.sampling.temperature)
        return ProbeAnswer(self._name, self._engine.version, logprobs)

    # Weights: called by `actors.pool.weight_sync.SyncClient`

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        await self._engine.init_weight_transfer_engine(init_info)

    async def shutdown_weight_transfer_engine(self) -> None:
        await self._engine.shutdown_weight_transfer_engine()

    async def start_weight_update(self) -> None:
        await self._engine.start_weight_update()

    async def update_weights(self, update_info: Any) -> None:
        await self._engine.update_weights(update_info)

    async def finish_weight_update(self, version: int) -> None:
        await self._engine.finish_weight_update(version)
        self._metrics.version.set(version)

    async def engine_rpc(self, method: str, *args: Any) -> list[Any]:
        """Call a method that `WorkerArgs.extension` adds to the engine's worker class."""
        return await self._engine.rpc(method, *args)

    async def pid(self) -> int:
        """The process that this worker is."""
        return os.getpid()

    async def shutdown(self) -> None:
        """End the engine and close the environments."""
        self._engine.shutdown()
        while self._idle_envs:
            await self._discard(self._idle_envs.pop())

    def _make_env(self) -> envs.AsyncEnv:
        env = envs.make(self._args.env_id, **self._args.env_kwargs)
        return envs.AsyncEnv(env, timeout_s=self._args.config.env_timeout_s)

    async def _discard(self, env: envs.AsyncEnv) -> None:
        try:
            await env.aclose()
        except envs.EnvError:
            # It failed before, so that it can't be closed in order is no news.
            return
