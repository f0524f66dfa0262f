"""Plays the episodes of one worker on its environments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import envs
from actors.config import RolloutConfig
from actors.errors import EnvFailureLimit, PromptTooLong, RenderError
from actors.rendering.context import episode_context
from actors.rendering.factory import make_renderer
from actors.rendering.renderer import Renderer
from actors.rollout.episode import ActionSource, run_episode
from actors.rollout.results import EpisodeResult
from buffer.client.base import BaseClient
from buffer.episodes.schema import Episode
from buffer.rollout_records import PlayedEpisode
from buffer.telemetry.endpoint import Exposure
from envs.registry import native_calls, tools

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from transformers import PreTrainedTokenizerBase

    from actors.rollout.critic_choice import Chooser

Store = Callable[[Episode], Awaitable[None]]


@dataclass(frozen=True)
class WorkerArgs:
    """Arguments of every worker of a pool.

    model: Hugging Face folder or name of the policy that engines load at their start.
    replay: destination of the episodes; None plays without storing.
    run: prefix of the episode ids.
    version: policy version of `model`.
    exposure: where the metrics endpoints of the pool and its workers listen.
    scorer: actor that picks one of `candidates` sampled actions at each state (`actors.rollout.critic_choice`); None
        plays the policy's own action.
    room_timeout_s: seconds within which a pool's first workers must find room in the cluster; None leaves this to
        `rollout.engine.startup_timeout_s`.
    """

    config: RolloutConfig
    model: str
    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    replay: BaseClient | None = None
    run: str = "run"
    seed: int = 0
    version: int = 0
    scorer: ActorHandle | None = None
    candidates: int = 1
    room_timeout_s: float | None = None
    exposure: Exposure = field(default_factory=Exposure)


class Player:
    """Plays episodes, each on an environment of its own; environments are kept for later episodes.

    The constructor makes the first environment, so that wrong arguments of the environment fail at once. `observe`
    receives each episode that was played to its end.
    """

    def __init__(self, args: WorkerArgs, name: str, chooser: Chooser | None = None) -> None:
        self._args = args
        self._name = name
        self.observe: Callable[[PlayedEpisode], object] = bool  # by default nothing
        self._chooser = chooser
        self._failures_in_row = 0
        self._env_kwargs = dict(args.env_kwargs)
        self._idle_envs = [self._make_env()]

    async def make_renderer(self, tokenizer: PreTrainedTokenizerBase) -> Renderer:
        """Return the renderer for the environment's tools. Where the policy calls them natively, the environment knows.

        Call it before the first episode. Raises RenderError.
        """
        renderer = make_renderer(self._args.config, tokenizer, tools(self._args.env_id, self._env_kwargs))
        kwargs = native_calls(self._args.env_id, self._env_kwargs) if renderer.tools else self._env_kwargs
        if kwargs != self._env_kwargs:
            await self.close()
            self._env_kwargs = kwargs
        return renderer

    async def play(
        self,
        seat: AbstractContextManager[ActionSource],
        renderer: Renderer,
        seed: int,
        *,
        greedy: bool,
        group: int = 1,
        store: Store | None,
        keep: bool = False,
    ) -> EpisodeResult:
        """Play the episode of environment seed `seed // group`, pass it to `store`, and return its figures.

        With `keep`, the result has the episode too. If the environment fails, the episode is dropped. Raises
        EnvFailureLimit, the errors of the engine and of `store`, and ChooserLost.
        """
        result = await self._play(seat, renderer, seed, greedy, group, store, keep)
        self._failures_in_row = 0 if result.failure is None else self._failures_in_row + 1
        if self._failures_in_row >= self._args.config.env_failure_limit:
            raise EnvFailureLimit(
                f"{self._name}: {self._failures_in_row} consecutive episodes of environment {self._args.env_id!r} "
                f"could not be played; the last one, of seed {seed}: {result.failure}. Remove the cause, or raise "
                "rollout.env_failure_limit if single failures are expected"
            )
        return result

    async def _play(
        self,
        seat: AbstractContextManager[ActionSource],
        renderer: Renderer,
        seed: int,
        greedy: bool,
        group: int,
        store: Store | None,
        keep: bool,
    ) -> EpisodeResult:
        env = self._idle_envs.pop() if self._idle_envs else self._make_env()
        try:
            with seat as source:
                played = await run_episode(
                    env,
                    source,
                    renderer,
                    self._args.config.sampling,
                    episode_context(self._args.config, renderer.tools),
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
        self.observe(played.record)
        episode = played.episode
        if store is not None:
            await store(episode)
        return EpisodeResult(
            seed=seed,
            ret=episode.ret,
            success=episode.success,
            turns=episode.turns,
            invalid_actions=played.invalid_actions,
            rejected_calls=played.rejected_calls,
            endless_thoughts=played.endless_thoughts,
            action_tokens=len(episode.logprobs),
            version=float(episode.versions.mean()),
            window_truncated=played.window_truncated,
            kept=played.record if keep else None,
        )

    async def close(self) -> None:
        """Close the environments that no episode is playing on."""
        while self._idle_envs:
            with suppress(envs.EnvError):
                await self._idle_envs.pop().aclose()

    def _make_env(self) -> envs.AsyncEnv:
        env = envs.make(self._args.env_id, **self._env_kwargs)
        return envs.AsyncEnv(env, timeout_s=self._args.config.env_timeout_s)
