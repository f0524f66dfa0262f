"""The rollout worker: a Ray actor with one engine that plays many episodes concurrently on one event loop."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import numpy as np
import ray

from actors.engine.engine import VllmEngine
from actors.errors import EngineDied, WeightsUnreachable
from actors.rollout.action_request import ActionRequest
from actors.rollout.coalescer import Coalescer
from actors.rollout.critic_choice import ActorChooser
from actors.rollout.metrics import WorkerMetrics
from actors.rollout.player import Player, WorkerArgs
from actors.rollout.results import EpisodeResult
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.flight.memory_stream import Offer
from buffer.quick_imports import quick_imports
from buffer.rollout_records import FreshActions, ProbeAnswer


class RolloutWorker:
    """An async Ray actor. `RolloutPool` creates and calls it."""

    def __init__(self, args: WorkerArgs, name: str, seed: int) -> None:
        self._args = args
        self._name = name
        self._seed = seed
        self._append = Coalescer(self._append_all)

    async def exists(self) -> None:
        """Return once the cluster has given the worker a process."""

    async def start(self) -> tuple[str, int, str]:
        """Start environment, renderer, engine and metrics.

        Return the "host:port" of the metrics, the context window in tokens, and Ray's id of the node.
        """
        with quick_imports():
            from transformers import AutoTokenizer

        # First, because wrong arguments of the environment must fail before the engine's long start.
        scorer, timeout_s = self._args.scorer, self._args.config.request_timeout_s
        chooser = None if scorer is None else ActorChooser(scorer, self._args.candidates, timeout_s)
        self._player = Player(self._args, self._name, chooser)
        self._renderer = await self._player.make_renderer(AutoTokenizer.from_pretrained(self._args.model))
        self._engine = await VllmEngine.start(
            self._args.model,
            self._args.config.engine,
            stop_token_ids=self._renderer.stop_token_ids,
            thought_end=self._renderer.thoughts.end_id if self._renderer.thoughts else None,
            stop_text=self._renderer.stop_text,
            seed=self._seed,
            version=self._args.version,
            name=self._name,
        )
        self._metrics = WorkerMetrics(self._engine.busy)
        self._metrics.version.set(self._engine.version)
        self._player.observe = self._metrics.turns_of
        address = self._args.exposure.serve(self._metrics.registry)
        return address, self._engine.window, ray.get_runtime_context().get_node_id()

    def _require_started(self) -> None:
        """Raise EngineDied in a process that Ray has restarted and the pool has not started yet.

        A call that was sent to the process before it reaches this one.
        """
        if not hasattr(self, "_metrics"):
            raise EngineDied(f"{self._name} restarted, and has no engine yet")

    async def wait_for_death(self) -> str:
        """Return when the engine has died, with the reason."""
        await self._engine.died.wait()
        return self._engine.why_died()

    # Episodes and actions

    async def play(self, seed: int, greedy: bool, store: bool, group: int = 1, keep: bool = False) -> EpisodeResult:
        """Play the episode of environment seed `seed // group`; with `store`, return after replay acknowledged it.

        With `keep`, the result has the episode.

        If the environment fails, the episode is dropped. Raises EnvFailureLimit, EngineDied, ChooserLost, and the
        errors of replay.
        """
        self._require_started()
        storing = store and self._args.replay is not None
        with self._metrics.playing.track_inprogress():
            result = await self._player.play(
                nullcontext(self._engine),
                self._renderer,
                seed,
                greedy=greedy,
                group=group,
                store=self._store if storing else None,
                keep=keep,
            )
        self._metrics.count(result, "training" if store else "evaluation")
        return result

    async def _store(self, episode: Episode) -> None:
        self._metrics.staleness(episode.versions, self._engine.version)
        with self._metrics.append_seconds.time():
            await self._append.submit(episode)

    async def _append_all(self, episodes: list[Episode]) -> list[None]:
        assert self._args.replay is not None
        await asyncio.to_thread(self._args.replay.append, episodes_to_batch(episodes))
        return [None] * len(episodes)

    async def act(self, request: ActionRequest) -> FreshActions:
        self._require_started()
        sampling = self._args.config.sampling
        parts = [
            self._engine.generate(state, n, sampling, logprobs=request.logprobs)
            for state, n in zip(request.states(), request.counts.tolist(), strict=True)
        ]
        actions = FreshActions.join(await asyncio.gather(*parts))
        self._metrics.fresh_actions.inc(len(actions.offsets) - 1)
        self._metrics.fresh_tokens.inc(len(actions.tokens))
        return actions

    async def probe(self, tokens: np.ndarray, positions: np.ndarray) -> ProbeAnswer:
        """Return this engine's log-probabilities of tokens of a sequence, with its policy version."""
        self._require_started()
        logprobs = await self._engine.probe(tokens, self._args.config.sampling.temperature, positions)
        return ProbeAnswer(self._name, self._engine.version, logprobs)

    async def update_engine(self, method: str, *args: Any) -> None:
        """Call a method of the engine that sends weights (`actors.pool.weight_sync.SyncClient`)."""
        self._require_started()
        with self._metrics.update(method):
            await getattr(self._engine, method)(*args)
        self._metrics.version.set(self._engine.version)

    async def fetch_weights(self, offer: Offer, timeout_s: float) -> str | None:
        """Copy the learner's weights to this host. Return why that failed, which leaves the engine as it was."""
        self._require_started()
        try:
            with self._metrics.update("fetch_weights"):
                await self._engine.fetch_weights(offer, timeout_s)
        except WeightsUnreachable as error:
            return str(error)
        return None
