"""The rollouts of an inline run: what `actors.pool.client.PoolClient` is for engines in other processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import numpy as np

from actors.errors import ActorError, RolloutTimeout, StaleWorkersError
from actors.inline.engine import InlineEngine
from actors.rollout.action_request import ActionRequest
from actors.rollout.critic_choice import CandidateScorer, InProcessChooser
from actors.rollout.player import Player, WorkerArgs
from actors.rollout.results import EpisodeResult, summarize, to_keep
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, WorkerStatus

_NAME = "inline"


class Deferred(Future[FreshActions]):
    """Computes its actions when they are first waited for, so that a cancelled request costs nothing."""

    def __init__(self, compute: Callable[[], FreshActions]) -> None:
        super().__init__()
        self._compute = compute

    def result(self, timeout: float | None = None) -> FreshActions:
        """Return the actions. Raises CancelledError after `cancel`. The computation ignores `timeout`."""
        if not self.done():
            self.set_result(self._compute())
        return super().result(timeout)


class InlineRollouts:
    """One sampler and its environments; satisfies `learner.protocols.RolloutService`. Its methods raise ActorError.

    Episodes in flight advance together: each turn of all of them is one batch.

    Args:
        scorer: picks one of `args.candidates` sampled actions at each state; None plays the policy's own action.
    """

    stale_error = StaleWorkersError
    """Never raised: the sampler does not die without the process."""

    def __init__(self, args: WorkerArgs, scorer: CandidateScorer | None = None) -> None:
        from transformers import AutoTokenizer  # late: brings torch

        config = args.config
        self._args = args
        # One loop for all calls, because an environment may hold on to the first. Ctrl-C cancels its tasks.
        self._runner = asyncio.Runner()
        chooser = None if scorer is None else InProcessChooser(scorer, args.candidates)
        self._player = Player(args, _NAME, chooser)
        self._renderer = self._runner.run(self._player.make_renderer(AutoTokenizer.from_pretrained(args.model)))
        self._engine = InlineEngine(
            args.model,
            config.engine,
            stop_token_ids=self._renderer.stop_token_ids,
            thought_end=self._renderer.thoughts.end_id if self._renderer.thoughts else None,
            ends=self._renderer.ends if self._renderer.stop_text else None,
            seed=args.seed,
            seats=config.episodes_at_once,
            version=args.version,
        )

    def ready(self, timeout_s: float) -> None:
        """Return at once: the constructor has loaded the model."""

    def window(self) -> int:
        """Return the context window in tokens."""
        return self._engine.window

    def collect(
        self,
        episodes: int,
        *,
        first_seed: int,
        group: int = 1,
        store: bool = True,
        greedy: bool = False,
        timeout_s: float | None = None,
        keep_every: int = 0,
    ) -> CollectReport:
        """Play episodes e = first_seed, first_seed + 1, ..., each on environment seed e // group, and report them.

        With `store`, replay holds every episode when the call returns, in the order of the seeds. The report has one of
        each `keep_every` groups. Raises RolloutTimeout after `timeout_s`, EnvFailureLimit, and the errors of replay.
        """
        started = time.monotonic()
        played: list[Episode] = []
        playing = self._collect(range(first_seed, first_seed + episodes), group, greedy, played, keep_every)
        try:
            results = self._runner.run(asyncio.wait_for(playing, timeout_s))
        except TimeoutError:
            raise RolloutTimeout(
                f"{episodes} episodes did not finish within {timeout_s:g} s ({len(played)} did); raise "
                "learner.timeout_s, or look for an environment that hangs"
            ) from None
        if store and self._args.replay is not None and played:
            played.sort(key=lambda episode: int(episode.episode_id.rpartition("-")[2]))
            self._args.replay.append(episodes_to_batch(played))
        seconds = time.monotonic() - started
        return summarize(results, seconds=seconds, lost=0, next_seed=first_seed + episodes)

    def request(
        self, prompts: Sequence[np.ndarray], n: int | np.ndarray, *, logprobs: bool = True
    ) -> Future[FreshActions]:
        """Request `n` actions of the current policy at each state (int32 token ids), or n[i] actions at state i.

        States that are prefixes of one another share passes, so request the states of an episode together. Equal states
        may occur. The actions are sampled when the future is first waited for.
        """
        request = ActionRequest.of(prompts, n, logprobs)
        return Deferred(lambda: self._engine.act(request, self._args.config.sampling))

    def workers(self) -> list[WorkerStatus]:
        """Return the one worker, this process."""
        return [WorkerStatus(_NAME, self._engine.version, ready=True, restarts=0)]

    def sync_client(self) -> InlineRollouts:
        """Return the object with `load_weights`."""
        return self

    def load_weights(self, version: int, weights: Iterable[tuple[str, Any]]) -> None:
        """Install weights, tensors by their names in a checkpoint, as policy `version`. Raises WeightTransferError."""
        self._engine.load(version, weights)

    def probe(self, tokens: np.ndarray, positions: np.ndarray) -> list[ProbeAnswer]:
        """Return the sampler's log p(tokens[i] | tokens[:i]) at the sampling temperature, for i in `positions`."""
        logprobs = self._engine.probe(tokens, self._args.config.sampling.temperature)[positions - 1]
        return [ProbeAnswer(_NAME, self._engine.version, logprobs)]

    def start(
        self, *, first_seed: int, episodes_per_version: int, max_staleness: int, group: int = 1, keep_every: int = 0
    ) -> NoReturn:
        """Raise ActorError: nothing plays while the learner works in the same process."""
        raise ActorError("an inline run plays and learns in turn; set mode=async for rollouts beside the learner")

    def admit(self, episodes: int) -> NoReturn:
        """Raise ActorError, as `start` does."""
        raise ActorError("nothing has been started that could admit episodes; an inline run plays by `collect` only")

    def stop(self) -> None:
        """Do nothing: nothing was started."""

    def report(self, *, at_least: int, timeout_s: float) -> NoReturn:
        """Raise ActorError, as `start` does."""
        raise ActorError("nothing has been started that could be reported; an inline run plays by `collect` only")

    def recover(self) -> NoReturn:
        """Raise ActorError: a learner that dies takes this object with it."""
        raise ActorError("an inline run is one process, and its learner does not restart within it")

    def shutdown(self) -> None:
        """End the episodes that an interrupt left unfinished, and close the environments."""
        try:
            self._runner.run(_end_others())
            self._runner.run(self._player.close())
        finally:
            self._runner.close()

    async def _collect(
        self, seeds: Sequence[int], group: int, greedy: bool, played: list[Episode], keep_every: int
    ) -> list[EpisodeResult]:
        """Play the seeds, at most as many at once as there are seats, and add the episodes to `played`."""
        waiting = iter(seeds)
        results: list[EpisodeResult] = []

        async def keep(episode: Episode) -> None:
            played.append(episode)

        async def play_on() -> None:
            for seed in waiting:
                seat, kept = self._engine.seat(), to_keep(seed, group, keep_every)
                results.append(
                    await self._player.play(
                        seat, self._renderer, seed, greedy=greedy, group=group, store=keep, keep=kept
                    )
                )

        lanes = [asyncio.create_task(play_on()) for _ in range(min(len(seeds), self._args.config.episodes_at_once))]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return results


async def _end_others() -> None:
    """Cancel the other tasks of this loop, those included that they start while they end.

    Otherwise they would play on while the environments close, and asyncio would print what becomes of them.
    """
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
