"""The shard's side of replication: it sends its log to the replica, and recovers a lost log from there.

The shard's log is on its node's own disk, the replica's copy on another node's. If the two differ, their epochs decide
(`buffer.replication.replica`): the shard records an epoch only after the replica has committed it. So if the replica's
epoch is higher, the log here is missing or left over from an earlier process; if it is lower, the copy is.
"""

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from buffer.atomic_files import write_atomic
from buffer.errors import ReplayError
from buffer.flight.endpoint import Endpoint
from buffer.log.write_ahead import Segment
from buffer.metrics import ShardMetrics
from buffer.replication.replica import BehindError, EpochError
from buffer.replication.transport import ReplicaState, write

logger = logging.getLogger(__name__)

_EPOCH_FILE = "epoch"
_CHUNK_BYTES = 8 << 20


class ReplicatedLog:
    """Keeps a replica equal to the log in a folder of this node. Thread-safe."""

    def __init__(self, directory: Path, replica: Endpoint, *, fsync: bool, metrics: ShardMetrics) -> None:
        self.directory = directory
        self._replica = replica
        self._fsync = fsync
        self._metrics = metrics
        self._life = uuid.uuid4().hex  # Identifies this process of the shard
        self._lock = threading.Lock()
        path = directory / _EPOCH_FILE
        self.epoch = int(path.read_text()) if path.exists() else 0  # Epoch of the log here; 0 if there is none
        self._known: ReplicaState | None = None  # The contents of the replica; None if the replica must be asked

    def recover(self, fill: Callable[[Path], None], timeout_s: float) -> None:
        """Make the folder hold all acknowledged rows, before a shard reads it.

        If neither side holds anything, `fill` fills the empty folder. Raises ReplayTimeout if the replica does not
        answer.
        """
        deadline = time.monotonic() + timeout_s
        theirs = self._ask_state(deadline)
        if theirs.epoch > self.epoch:
            text = "the log %s has epoch %d, its replica epoch %d: the shard reads the replica"
            logger.warning(text, self.directory, self.epoch, theirs.epoch)
            self._clear()
            self._fetch(theirs, deadline)
            self._begin_epoch(theirs.epoch + 1, None, deadline)
        elif self.epoch == 0:
            self._clear()
            fill(self.directory)
        elif theirs.epoch == self.epoch:
            # This log lacks acknowledged bytes only if the machine crashed before they reached its disk.
            self._fetch(theirs, deadline)

    def sync(self, segments: Callable[[], Sequence[Segment]], timeout_s: float) -> None:
        """Return when the replica has all of `segments()`, the present log.

        Concurrent calls wait for the first one, which sends their rows too. Raises EpochError if another process is
        this shard now, ReplayTimeout, DiskFullError, LogError.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while True:
                try:
                    if self._known is None:
                        self._known = self._meet(segments, deadline)
                    self._known = self._send(segments(), self._known, deadline)
                    return
                except BehindError as error:
                    logger.warning("the replica of %s changed (%s); asking for its contents", self.directory, error)
                    self._known = None
                except ReplayError:
                    self._known = None
                    raise

    def _meet(self, segments: Callable[[], Sequence[Segment]], deadline: float) -> ReplicaState:
        """Return the contents of the replica; rebuild it if it is empty or has an older epoch."""
        theirs = self._ask_state(deadline)
        if theirs.epoch > self.epoch:
            raise EpochError(
                f"{self.directory} has epoch {self.epoch}, its replica epoch {theirs.epoch}: another process is this "
                "shard now"
            )
        if theirs.epoch == self.epoch and self.epoch > 0:
            return theirs
        epoch = self.epoch + 1
        logger.info("rebuilding the replica of %s as epoch %d", self.directory, epoch)
        self._replica.act("discard", {"epoch": epoch}, deadline)
        rebuilt = self._send(segments(), ReplicaState(theirs.process, epoch, {}), deadline, new_epoch=True)
        self._begin_epoch(epoch, rebuilt.segments, deadline)
        self._metrics.replicas_made.inc()
        return rebuilt

    def _send(
        self, segments: Sequence[Segment], known: ReplicaState, deadline: float, *, new_epoch: bool = False
    ) -> ReplicaState:
        """Send the replica the bytes that it lacks; returns its contents afterwards."""
        has = dict(known.segments)
        for segment in segments:
            name = segment.path.name
            sent = has.get(name, 0)
            if sent >= segment.size:
                continue
            try:
                with segment.path.open("rb", buffering=0) as file:
                    file.seek(sent)
                    while sent < segment.size and (data := file.read(min(_CHUNK_BYTES, segment.size - sent))):
                        write(self._replica, known, name, sent, data, deadline, new_epoch=new_epoch)
                        sent += len(data)
                        has[name] = sent
            except FileNotFoundError:
                continue  # All its rows were evicted meanwhile.
        names = {segment.path.name for segment in segments}
        if not new_epoch and not has.keys() <= names:
            keep = {"process": known.process, "epoch": known.epoch, "segments": [*names]}
            self._replica.act("keep", keep, deadline)
            has = {name: size for name, size in has.items() if name in names}
        return known._replace(segments=has)

    def _fetch(self, theirs: ReplicaState, deadline: float) -> None:
        """Append to the segments here what the replica has beyond them."""
        for name, size in theirs.segments.items():
            with (self.directory / name).open("ab") as file:
                while (held := file.tell()) < size:
                    place = {"segment": name, "offset": held, "length": min(_CHUNK_BYTES, size - held)}
                    file.write(self._replica.act("read", place, deadline))

    def _begin_epoch(self, epoch: int, segments: dict[str, int] | None, deadline: float) -> None:
        self._replica.act("commit", {"epoch": epoch, "life": self._life, "segments": segments}, deadline)
        write_atomic(self.directory / _EPOCH_FILE, str(epoch), sync=self._fsync)
        self.epoch = epoch

    def _ask_state(self, deadline: float) -> ReplicaState:
        return ReplicaState(**json.loads(self._replica.act("state", {}, deadline)))

    def _clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.epoch = 0
