"""The limiter's Ray actor: it lets calls wait, knows the shards, and keeps its counts on disk.

It runs on one asyncio loop, so the state cannot change while a call reads it. A wait that times out returns a sentence,
from which the client raises one clear error without Ray's traceback.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray

from buffer.atomic_files import write_atomic
from buffer.config import ReplayConfig
from buffer.flight.actor_lookup import actor_name
from buffer.limiter.limiter import Limiter
from buffer.limiter.metrics import LimiterMetrics
from buffer.log.folders import STATE_FILE, read_manifest
from buffer.sampling.request import View
from buffer.telemetry.endpoint import Exposure

logger = logging.getLogger(__name__)

SAVE_DELAY_S = 0.2  # Seconds between a change of the counts and their write to disk


class LimiterActor:
    """Limiter of one replay service, started by `ReplayService` through `ray.remote`."""

    def __init__(self, config: ReplayConfig, directory: Path, service: str, exposure: Exposure) -> None:
        """`service` is the unique name of the service, with which the names of its actors begin."""
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._directory = directory
        self._service = service
        self._limiter = Limiter(config)
        if (state := directory / STATE_FILE).exists():
            self._limiter.load_state_dict(json.loads(state.read_text()))
        self._changed = asyncio.Condition()
        self._saving: asyncio.TimerHandle | None = None
        self._closed = False
        self._metrics = LimiterMetrics(self._limiter)
        self._metrics_address = exposure.serve(self._metrics.registry)
        self._request_reports()

    def _request_reports(self) -> None:
        """Ask the shards for their counts: after a restart the file may lag behind their earlier reports."""
        for index in range(read_manifest(self._directory).shards):
            name = actor_name(self._service, "shard", index)
            try:
                ray.get_actor(name).report.remote()
            except ValueError:
                logger.info("%s does not run yet; it reports when it starts", name)

    async def topology(self) -> tuple[list[str], tuple[int, ...]]:
        """Return the names of the shards' actors, and the numbers of shards that the replay had before."""
        manifest = read_manifest(self._directory)
        return [actor_name(self._service, "shard", index) for index in range(manifest.shards)], manifest.earlier

    async def report(self, shard: int, life: str, counts: dict[str, int], born: dict[str, int]) -> int:
        """Record a shard's counts (see `Limiter.report`) and wake waiting calls."""
        lost = self._limiter.report(shard, life, counts, born)
        await self._notify()
        return lost

    async def await_insert(self, timeout_s: float, who: str) -> str | None:
        """Wait until an insert is admitted; returns None, or a sentence at the timeout."""
        return await self._wait("insert", self._limiter.insert_block, timeout_s, who)

    async def await_sample(self, view: View, turns: int, timeout_s: float, who: str) -> str | None:
        """Wait until a sample of the view is admitted, and count `turns` as sampled; returns as `await_insert`."""
        refused = await self._wait(view, partial(self._limiter.sample_block, view), timeout_s, who)
        if refused is None:
            await self.count_sampled({view: turns})
        return refused

    async def count_sampled(self, turns: dict[View, int]) -> None:
        """Count turns of each view as sampled; a negative number corrects an admitted sample that failed."""
        if any(turns.values()):
            for view, count in turns.items():
                self._limiter.sampled[view] += count
            await self._notify()

    async def stats(self) -> dict[str, int]:
        """Return the counts of the whole replay."""
        return {name: getattr(self._limiter, name) for name in ("inserted_episodes", "inserted_turns", "sampled_turns")}

    async def metrics_address(self) -> str:
        """Return "host:port" of the metrics endpoint."""
        return self._metrics_address

    async def checkpoint(self, directory: Path) -> None:
        """Write the present counts under `directory`."""
        self._write(Path(directory))

    async def close(self) -> None:
        """Write the counts a last time; afterwards the folder may belong to another service."""
        self._closed = True
        if self._saving is not None:
            self._saving.cancel()
        self._write(self._directory)

    async def _wait(self, side: str, block: Callable[[], str | None], timeout_s: float, who: str) -> str | None:
        """Return None when `block()` is None, or a sentence at the timeout; log who waits in between."""
        if block() is None:
            return None
        # The clock runs while the call waits, so that a block shows before it ends.
        with self._metrics.waiting.labels(side).track_inprogress(), self._metrics.clocks[side]:
            refused = await self._outlast(block, timeout_s, who)
        if refused is not None:
            self._metrics.timeouts.labels(side).inc()
        return refused

    async def _outlast(self, block: Callable[[], str | None], timeout_s: float, who: str) -> str | None:
        begun = time.monotonic()
        warn_at = begun + self._config.blocked_warning_s
        async with self._changed:
            while (reason := block()) is not None:
                now = time.monotonic()
                if now >= begun + timeout_s:
                    return f"{who}: {reason}; gave up after {timeout_s:g} s"
                if now >= warn_at:
                    logger.warning("%s: blocked for %.0f s: %s", who, now - begun, reason)
                    warn_at = now + self._config.blocked_warning_s
                try:
                    await asyncio.wait_for(self._changed.wait(), min(begun + timeout_s, warn_at) - now)
                except TimeoutError:
                    continue
        return None

    async def _notify(self) -> None:
        if self._saving is None and not self._closed:
            self._saving = asyncio.get_running_loop().call_later(SAVE_DELAY_S, self._save)
        async with self._changed:
            self._changed.notify_all()

    def _save(self) -> None:
        self._saving = None
        try:
            self._write(self._directory)
        except OSError as error:
            logger.error("cannot write the counts (%s); a restarted limiter would fall back to older ones", error)

    def _write(self, directory: Path) -> None:
        write_atomic(directory / STATE_FILE, json.dumps(self._limiter.state_dict()))
