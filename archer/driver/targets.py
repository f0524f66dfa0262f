"""The list of a run's metrics endpoints, from which Prometheus finds the processes of all runs of a folder.

`runs/NAME/targets.json` has the form that `file_sd_configs` of Prometheus reads: one entry for each process, with a
label `instance` that stays the same when the process restarts at another port. A thread of the driver keeps the file up
to date and counts the processes; at the end of the run the list is empty.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ray.exceptions import RayError

from actors.errors import ActorError
from archer.config.models import RunConfig
from archer.driver.metrics import RunMetrics
from buffer.atomic_files import write_atomic
from buffer.errors import ReplayError
from buffer.telemetry.endpoint import Process
from learner.errors import LearnerError

Source = Callable[[], Iterable[Process]]

REFRESH_S = 2.0
_LEAVE_TIMEOUT_S = 15.0

log = logging.getLogger(__name__)


class Targets:
    """Keeps the file up to date from the beginning to the end of its `with` block.

    Each refresh asks every source. If a source fails, for example while its process restarts, the file keeps its last
    answer, the failure is logged and counted, and its processes count as missing.

    Args:
        run: name of the run, the first part of each `instance`.
        expected: number of processes of each role.
    """

    def __init__(self, path: Path, run: str, metrics: RunMetrics, expected: Mapping[str, int]) -> None:
        self._path = path
        self._run = run
        self._metrics = metrics
        self._expected = expected
        self._sources: dict[str, Source] = {}
        self._answers: dict[str, list[Process]] = {}
        self._addresses: dict[tuple[str, str], str] = {}
        self._restarts: Counter[tuple[str, str]] = Counter()
        self._written = ""
        self._refreshing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="targets", daemon=True)

    def add_source(self, name: str, source: Source) -> None:
        """List the processes that `source` returns from now on."""
        self._sources[name] = source

    def expect(self, role: str, number: int) -> None:
        """Expect another number of processes of a role from now on."""
        self._expected = {**self._expected, role: number}

    def clear(self) -> None:
        """Ask no source from now on, and return when none is being asked. Call it before the driver leaves the cluster,
        because a call of Ray's must not be in flight then."""
        self._sources = {}
        if self._refreshing.acquire(timeout=_LEAVE_TIMEOUT_S):
            self._refreshing.release()

    def refresh(self) -> None:
        """Ask every source, write the file if it changes, and count the processes."""
        with self._refreshing:
            known = [process for name, source in list(self._sources.items()) for process in self._ask(name, source)]
            for process in known:
                self._note(process)
            live = [process for process in known if process.address]
            by_role: Counter[str] = Counter()
            for (role, _), count in self._restarts.items():
                by_role[role] += count
            self._metrics.count(live, self._expected, by_role)
            listed = sorted(process for of_source in self._answers.values() for process in of_source if process.address)
            self._write([self._entry(process) for process in listed])

    def __enter__(self) -> Targets:
        self.refresh()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._ended.set()
        self._thread.join(_LEAVE_TIMEOUT_S)
        self._write([])

    def _keep(self) -> None:
        while not self._ended.wait(REFRESH_S):
            self.refresh()

    def _ask(self, name: str, source: Source) -> list[Process]:
        """Return the processes of a source; none if it fails."""
        try:
            self._answers[name] = list(source())
        except (OSError, RayError, ActorError, LearnerError, ReplayError) as error:
            self._metrics.source_failures.labels(name).inc()
            log.info("no processes from %s (%s); listing its last answer", name, error)
            return []
        return self._answers[name]

    def _note(self, process: Process) -> None:
        """Count the restarts of a process: what its source counts, else the changes of its address."""
        key = process.role, process.name
        if process.restarts is not None:
            self._restarts[key] = max(self._restarts[key], process.restarts)
        elif process.address:
            self._restarts[key] += self._addresses.get(key, process.address) != process.address
            self._addresses[key] = process.address

    def _entry(self, process: Process) -> dict[str, object]:
        role, name = process.role, process.name
        labels = {"instance": f"{self._run}/{name}", "run": self._run, "role": role, "name": name}
        return {"targets": [process.address], "labels": labels}

    def _write(self, entries: list[dict[str, object]]) -> None:
        text = json.dumps(entries, indent=1) + "\n"
        if text == self._written:
            return
        try:
            write_atomic(self._path, text)
        except OSError as error:  # a full disk ends the run where its rows cannot be written, with a sentence
            log.warning("%s could not be written: %s", self._path, error)
            return
        self._written = text


def expected_processes(config: RunConfig) -> dict[str, int]:
    """Return the number of processes of each role that a run should have."""
    replay = config.replay
    found = {
        "driver": 1,
        "board": 1,
        "limiter": 1,
        "shard": replay.shards,
        "replica": replay.shards * (replay.replication - 1),
        "pool": 1,
        "rollout": config.rollout.least_workers,
        "scorer": int(bool(config.algorithm_config.proposals())),
        "learner": config.learner.ranks,
    }
    return {role: number for role, number in found.items() if number}
