"""A shard's side of its replica: what it acknowledges is there too, and what it lost comes back from there.

The shard's log lies on its node's own disk, and so does the replica's on another's. Which of the two is right, if they
differ, the epochs say (`buffer.replica`): the shard writes down an epoch only after the replica has committed it, so a
higher one of the replica means that this log is missing or left over from an earlier life, and a lower one means that
the replica is.
"""

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from buffer.atomic_files import write_atomic
from buffer.errors import BehindError, EpochError, ReplayError
from buffer.log.write_ahead import Segment
from buffer.metrics import ShardMetrics
from buffer.replication.flight import ReplicaEndpoint, ReplicaState

logger = logging.getLogger(__name__)

_EPOCH_FILE = "epoch"
_CHUNK_BYTES = 8 << 20


class Replication:
    """Between the log in a folder of this node and its replica. Thread-safe."""

    def __init__(self, directory: Path, replica: ReplicaEndpoint, *, fsync: bool, metrics: ShardMetrics) -> None:
        self._directory = directory
        self._replica = replica
        self._fsync = fsync
        self._metrics = metrics
        self._life = uuid.uuid4().hex
        self._lock = threading.Lock()
        path = directory / _EPOCH_FILE
        self.epoch = int(path.read_text()) if path.exists() else 0
        """Of the log here; 0 where there is none."""
        self._known: ReplicaState | None = None
        """What the replica has; None where it must be asked."""

    def recover(self, seed: Callable[[Path], None], timeout_s: float) -> None:
        """Make the folder hold all that was ever acknowledged, before a shard reads it.

        Where neither side has anything, `seed` fills the empty folder. Raises ReplayTimeout where the replica does
        not answer.
        """
        deadline = time.monotonic() + timeout_s
        theirs = self._replica.state(deadline)
        if theirs.epoch > self.epoch:
            logger.warning(
                "%s has a log of epoch %d, its replica of %d: it is read from there",
                self._directory,
                self.epoch,
                theirs.epoch,
            )
            self._clear()
            self._fetch(theirs, deadline)
            self._begin_epoch(theirs.epoch + 1, None, deadline)
        elif self.epoch == 0:
            self._clear()
            seed(self._directory)
        elif theirs.epoch == self.epoch:
            # Nothing, but where the machine went down and kept less of this log than it had acknowledged.
            self._fetch(theirs, deadline)

    def sync(self, segments: Callable[[], Sequence[Segment]], timeout_s: float) -> None:
        """Return once the replica has all of `segments()`, the log as it is now.

        Calls that come meanwhile wait for the first, and have nothing left to send. Raises EpochError where another
        process is this shard by now, ReplayTimeout, DiskFullError, LogError.
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
                    logger.warning("the replica of %s is not what it was (%s); looking again", self._directory, error)
                    self._known = None
                except ReplayError:
                    self._known = None
                    raise

    def _meet(self, segments: Callable[[], Sequence[Segment]], deadline: float) -> ReplicaState:
        """Find out what the replica has; where that is nothing or another epoch's, make it anew."""
        theirs = self._replica.state(deadline)
        if theirs.epoch > self.epoch:
            raise EpochError(
                f"{self._directory} is of epoch {self.epoch} and its replica of {theirs.epoch}: another process is "
                "this shard now"
            )
        if theirs.epoch == self.epoch and self.epoch > 0:
            return theirs
        epoch = self.epoch + 1
        logger.info("makes the replica of %s anew, as epoch %d", self._directory, epoch)
        self._replica.discard(epoch, deadline)
        made = self._send(segments(), ReplicaState(theirs.process, epoch, {}), deadline, anew=True)
        self._begin_epoch(epoch, made.segments, deadline)
        self._metrics.replicas_made.inc()
        return made

    def _send(
        self, segments: Sequence[Segment], known: ReplicaState, deadline: float, *, anew: bool = False
    ) -> ReplicaState:
        """Give the replica what it lacks; returns what it has then."""
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
                        self._replica.write(known.process, known.epoch, name, sent, data, deadline, anew=anew)
                        sent += len(data)
                        has[name] = sent
            except FileNotFoundError:
                continue  # All its rows were evicted meanwhile.
        names = {segment.path.name for segment in segments}
        if not anew and not has.keys() <= names:
            self._replica.keep(known.process, known.epoch, names, deadline)
            has = {name: size for name, size in has.items() if name in names}
        return known._replace(segments=has)

    def _fetch(self, theirs: ReplicaState, deadline: float) -> None:
        """Append to the segments here what the replica has beyond them."""
        for name, size in theirs.segments.items():
            with (self._directory / name).open("ab") as file:
                while (held := file.tell()) < size:
                    file.write(self._replica.read(name, held, min(_CHUNK_BYTES, size - held), deadline))

    def _begin_epoch(self, epoch: int, segments: dict[str, int] | None, deadline: float) -> None:
        self._replica.commit(epoch, self._life, segments, deadline)
        write_atomic(self._directory / _EPOCH_FILE, str(epoch), sync=self._fsync)
        self.epoch = epoch

    def _clear(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        self.epoch = 0
