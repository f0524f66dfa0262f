"""The rollout worker: a Ray actor with one engine that plays many episodes concurrently on one event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.actor import ActorHandle

import envs
from actors.config import RolloutConfig
from actors.engine.engine import VllmEngine
from actors.errors import EnvFailureLimit, PromptTooLong, RenderError
from actors.rendering.factory import make_renderer
from actors.rollout.action_request import ActionRequest
from actors.rollout.coalescer import Coalescer
from actors.rollout.critic_choice import Chooser
from actors.rollout.episode import run_episode
from actors.rollout.metrics import WorkerMetrics
from actors.rollout.results import EpisodeResult
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.rollout_records import FreshActions, ProbeAnswer

if TYPE_CHECKING:
    from buffer.client.ray_client import ReplayClient


@dataclass(frozen=True)
class WorkerArgs:
    """Arguments of every worker of a pool.

    model: Hugging Face folder or name of the policy that engines load at their start.
    replay: destination of the episodes; None plays without storing.
    run: prefix of the episode ids.
    version: policy version of `model`.
    scorer: actor that picks one of `candidates` sampled actions at each state (`actors.rollout.critic_choice`); None
        plays the policy's own action.
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


class RolloutWorker:
    """An async Ray actor. `RolloutPool` creates and calls it."""

    def __init__(self, args: WorkerArgs, name: str, seed: int) -> None:
        self._args = args
        self._name = name
        self._seed = seed
        self._idle_envs: list[envs.AsyncEnv] = []
        self._failures_in_row = 0
        self._append = Coalescer(self._append_all)
        timeout_s = args.config.request_timeout_s
        self._chooser = None if args.scorer is None else Chooser(args.scorer, args.candidates, timeout_s)

    async def start(self) -> tuple[str, int]:
        """Start environment, renderer, engine and metrics.

        Return the "host:port" of the metrics, and the context window in tokens.
        """
        from transformers import AutoTokenizer

        # First, because wrong arguments of the environment must fail before the engine's long start.
        self._idle_envs.append(self._make_env())
        self._renderer = make_renderer(self._args.config.renderer, AutoTokenizer.from_pretrained(self._args.model))
        self._engine = await VllmEngine.start(
            self._args.model,
            self._args.config.engine,
            stop_token_ids=self._renderer.stop_token_ids,
            seed=self._seed,
            version=self._args.version,
            name=self._name,
        )
        self._metrics = WorkerMetrics()
        self._metrics.version.set(self._engine.version)
        return f"{ray.util.get_node_ip_address()}:{self._metrics.serve()}", self._engine.window

    async def wait_for_death(self) -> None:
        """Return when the engine has died."""
        await self._engine.died.wait()

    # Episodes and actions

    async def play(self, seed: int, greedy: bool, store: bool, group: int = 1) -> EpisodeResult:
        """Play the episode of environment seed `seed // group`; with `store`, return after replay acknowledged it.

        If the environment fails, the episode is dropped. Raises EnvFailureLimit, EngineDied, ChooserLost, and the
        errors of replay.
        """
        with self._metrics.playing.track_inprogress():
            result = await self._play(seed, greedy, store, group)
        self._metrics.count(result)
        self._failures_in_row = 0 if result.failure is None else self._failures_in_row + 1
        if self._failures_in_row >= self._args.config.env_failure_limit:
            raise EnvFailureLimit(
                f"{self._name}: {self._failures_in_row} consecutive episodes failed in environment "
                f"{self._args.env_id!r}; the last one, of seed {seed}: {result.failure}. Fix the environment, or raise "
                "rollout.env_failure_limit if single failures are expected"
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
            # That a failed environment also fails to close adds no information.
            with suppress(envs.EnvError):
                await env.aclose()
            return EpisodeResult(seed=seed, failure=f"{type(error).__name__}: {error}")
        self._idle_envs.append(env)
        episode = played.episode
        if store and self._args.replay is not None:
            with self._metrics.append_seconds.time():
                await self._append.submit(episode)
        return EpisodeResult(
            seed=seed,
            ret=episode.ret,
            success=episode.success,
            turns=episode.turns,
            invalid_actions=played.invalid_actions,
            action_tokens=len(episode.logprobs),
            version=float(episode.versions.mean()),
            window_truncated=played.window_truncated,
        )

    async def _append_all(self, episodes: list[Episode]) -> list[None]:
        assert self._args.replay is not None
        await asyncio.to_thread(self._args.replay.append, episodes_to_batch(episodes))
        return [None] * len(episodes)

    async def act(self, request: ActionRequest) -> FreshActions:
        sampling = self._args.config.sampling
        parts = [
            self._engine.generate(state, n, sampling, logprobs=request.logprobs)
            for state, n in zip(request.states(), request.counts.tolist(), strict=True)
        ]
        actions = FreshActions.join(await asyncio.gather(*parts))
        self._metrics.fresh_actions.inc(len(actions.offsets) - 1)
        self._metrics.fresh_tokens.inc(len(actions.tokens))
        return actions

    async def probe(self, tokens: np.ndarray) -> ProbeAnswer:
        """Return this engine's log-probabilities of a token sequence, with its policy version."""
        logprobs = await self._engine.probe(tokens.tolist(), self._args.config.sampling.temperature)
        return ProbeAnswer(self._name, self._engine.version, logprobs)

    async def update_engine(self, method: str, *args: Any) -> None:
        """Call a method of the engine that sends weights (`actors.pool.weight_sync.SyncClient`)."""
        await getattr(self._engine, method)(*args)
        self._metrics.version.set(self._engine.version)

    def _make_env(self) -> envs.AsyncEnv:
        env = envs.make(self._args.env_id, **self._args.env_kwargs)
        return envs.AsyncEnv(env, timeout_s=self._args.config.env_timeout_s)
