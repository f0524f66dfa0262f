"""A shard's log and its replica on two disks, with the real endpoint; then a Ray cluster that loses nodes."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.flight as flight
import pytest
from pydantic import ValidationError
from replay_cases import held_ids, make_batch

from buffer.config import ReplayConfig
from buffer.errors import ReplayError, ReplayTimeout
from buffer.flight.endpoint import Endpoint
from buffer.metrics import ShardMetrics
from buffer.replication.log_location import local_folder
from buffer.replication.replica import BehindError, EpochError, Replica
from buffer.replication.replicated_log import ReplicatedLog
from buffer.replication.transport import ReplicaServer
from buffer.shard.shard import Shard

SCENARIO = Path(__file__).with_name("lost_nodes.py")
CHECKOUT_ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A replica's disk and process, each of which may be lost."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.address: str | None = None
        self.start()

    def start(self) -> None:
        self.replica = Replica(self.disk, fsync=False)
        self.server = ReplicaServer(self.replica, token="t")
        self.address = f"127.0.0.1:{self.server.port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.address = None

    def lose(self) -> None:
        """Lose the node and its disk, and start an empty one."""
        self.stop()
        shutil.rmtree(self.disk)
        self.start()

    def locate(self, timeout_s: float) -> str:
        if self.address is None:
            raise flight.FlightUnavailableError("not there")
        return self.address


class Node:
    """A shard on its own disk, replicated to a site."""

    def __init__(self, disk: Path, site: Site, *, home: Path | None = None, timeout_s=20, **settings) -> None:
        metrics = ShardMetrics()
        endpoint = Endpoint("the replica", site.locate, "t")
        disk.mkdir(exist_ok=True)
        self.timeout_s = timeout_s
        self.replication = ReplicatedLog(disk, endpoint, fsync=False, metrics=metrics)
        self.replication.recover(lambda folder: shutil.copytree(home, folder, dirs_exist_ok=True) if home else None, 20)
        self.shard = Shard(0, ReplayConfig(shards=1, **settings), disk, metrics)
        self.sync()

    def sync(self) -> None:
        self.replication.sync(self.shard.segments, self.timeout_s)

    def append(self, indices) -> None:
        """Return when the service would acknowledge the append."""
        self.shard.append(make_batch(indices))
        self.sync()

    def ids(self) -> set[str]:
        return set(held_ids(self.shard))


def names(indices) -> set[str]:
    return {f"e{index}" for index in indices}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "replica")
    yield site
    if site.address:
        site.stop()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("segment-*")}


def test_a_server_that_was_shut_down_has_no_thread_left(tmp_path):
    before = set(threading.enumerate())
    ReplicaServer(Replica(tmp_path, fsync=False), token="t").shutdown()
    assert set(threading.enumerate()) <= before


def test_the_replica_is_the_log_byte_for_byte(tmp_path, site):
    node = Node(tmp_path / "a", site, segment_bytes=4096, capacity_turns=100)
    for first in range(0, 200, 10):
        node.append(range(first, first + 10))
        assert contents(site.disk / "1") == contents(tmp_path / "a")
    # Segments of evicted rows are deleted on both sides.
    assert 1 < len(contents(site.disk / "1")) < 20
    assert (tmp_path / "a" / "segment-000000000000000.arrow").exists() is False


def test_a_shard_whose_disk_is_lost_comes_back_from_its_replica(tmp_path, site):
    node = Node(tmp_path / "a", site, segment_bytes=4096)
    node.append(range(50))
    # In the log of this node, but not acknowledged.
    node.shard.append(make_batch(range(50, 60)))
    moved = Node(tmp_path / "b", site)
    assert moved.ids() == names(range(50))
    assert moved.shard.counts().inserted_episodes == 50
    moved.append(range(55, 70))
    assert contents(site.disk / "2") == contents(tmp_path / "b")
    # The earlier process still runs, as behind a broken network, but can acknowledge nothing.
    with pytest.raises(EpochError, match="another process is th"):
        node.sync()
    # Its node returns with its old disk.
    again = Node(tmp_path / "a", site)
    assert again.ids() == names([*range(50), *range(55, 70)])


def test_a_shard_that_is_killed_keeps_its_log_and_sends_what_the_replica_lacks(tmp_path, site):
    node = Node(tmp_path / "a", site)
    node.append(range(20))
    node.shard.append(make_batch(range(20, 30)))
    again = Node(tmp_path / "a", site)
    assert again.ids() == names(range(30))
    assert again.replication.epoch == 1
    assert contents(site.disk / "1") == contents(tmp_path / "a")


def test_a_replica_that_is_killed_goes_on_and_one_that_is_lost_is_rebuilt(tmp_path, site):
    node = Node(tmp_path / "a", site, segment_bytes=4096)
    node.append(range(50))
    site.stop()
    site.start()
    node.append(range(50, 60))
    assert (node.replication.epoch, contents(site.disk / "1")) == (1, contents(tmp_path / "a"))
    site.lose()
    node.append(range(60, 70))
    assert (node.replication.epoch, contents(site.disk / "2")) == (2, contents(tmp_path / "a"))
    assert Node(tmp_path / "b", site).ids() == names(range(70))


def test_a_replica_left_over_from_before_is_never_read(tmp_path, site):
    node = Node(tmp_path / "a", site)
    node.append(range(10))
    stale = tmp_path / "stale"
    shutil.copytree(site.disk, stale)
    site.lose()
    node.append(range(10, 20))
    # The replica returns to its old disk.
    site.stop()
    shutil.rmtree(site.disk)
    shutil.copytree(stale, site.disk)
    site.start()
    again = Node(tmp_path / "a", site)
    assert again.ids() == names(range(20))
    assert contents(site.disk / "3") == contents(tmp_path / "a")


def test_nothing_is_acknowledged_while_the_replica_is_away(tmp_path, site):
    node = Node(tmp_path / "a", site, timeout_s=0.5)
    site.stop()
    with pytest.raises(ReplayTimeout, match="waits for the replica, which did not answer in time"):
        node.append(range(10))
    site.start()
    node.append(range(10))
    assert contents(site.disk / "1") == contents(tmp_path / "a")


def test_a_copy_that_was_interrupted_never_counts(tmp_path):
    replica = Replica(tmp_path, fsync=False)
    replica.commit(1, "a", {})
    replica.write(replica.process, 1, "segment-000000000000000.arrow", 0, b"whole", new_epoch=False)
    replica.write(replica.process, 2, "segment-000000000000000.arrow", 0, b"par", new_epoch=True)
    sizes = {"segment-000000000000000.arrow": 4, "segment-000000000000001.arrow": 2}
    with pytest.raises(BehindError, match="is not complete"):
        replica.commit(2, "b", sizes)
    assert replica.read("segment-000000000000000.arrow", 0, 9) == b"whole"
    restarted = Replica(tmp_path, fsync=False)
    assert (restarted.epoch, restarted.sizes()) == (1, {"segment-000000000000000.arrow": 5})
    with pytest.raises(BehindError, match="another process"):
        restarted.write(replica.process, 2, "segment-000000000000001.arrow", 0, b"ts", new_epoch=True)


def test_writes_are_repeatable_and_refused_where_they_do_not_belong(tmp_path):
    replica = Replica(tmp_path, fsync=True)
    name = "segment-000000000000000.arrow"
    with pytest.raises(BehindError, match="of epoch 0"):
        replica.write(replica.process, 1, name, 0, b"ab", new_epoch=False)
    replica.write(replica.process, 3, name, 0, b"ab", new_epoch=True)
    for _ in range(2):
        replica.write(replica.process, 3, name, 2, b"cd", new_epoch=True)
    for _ in range(2):
        replica.commit(3, "a", {name: 4})
    assert replica.read(name, 1, 100) == b"bcd"
    with pytest.raises(EpochError):
        replica.commit(3, "another life", {name: 4})
    with pytest.raises(EpochError):
        replica.write(replica.process, 2, name, 4, b"x", new_epoch=False)
    with pytest.raises(BehindError, match="ends at byte 4"):
        replica.write(replica.process, 3, name, 5, b"x", new_epoch=False)
    with pytest.raises(ReplayError, match="is no segment"):
        replica.write(replica.process, 3, "../../escape", 0, b"x", new_epoch=False)
    replica.commit(4, "b", None)
    assert Replica(tmp_path, fsync=True).sizes() == {name: 4}


def test_a_shard_without_any_epoch_begins_with_the_rows_at_home(tmp_path, site):
    home = Shard(0, ReplayConfig(shards=1), tmp_path / "home", ShardMetrics())
    home.append(make_batch(range(30)))
    home.close()
    node = Node(tmp_path / "a", site, home=tmp_path / "home")
    assert node.ids() == names(range(30))
    assert contents(site.disk / "1") == contents(tmp_path / "home")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replication": 2, "durability": "memory"}, "durability=memory has none"),
        ({"replication": 2, "cpus_per_shard": 0}, "set cpus_per_shard above 0"),
        ({"local_dir": "/disk"}, "replication=1 has no second copy"),
        ({"replication": 3}, "1 or 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ReplayConfig(**settings)


def test_folders_of_earlier_lives_go_and_a_variable_that_is_not_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    first = local_folder("$NODE_DISK/replay", tmp_path / "run" / "replay", "life-1", "shard-0")
    other = local_folder("$NODE_DISK/replay", tmp_path / "run" / "replay", "life-1", "shard-1")
    second = local_folder("$NODE_DISK/replay", tmp_path / "run" / "replay", "life-2", "shard-0")
    assert second.is_dir()
    assert other.is_dir()
    assert not first.exists()
    assert second.is_relative_to(tmp_path / "disk" / "replay")
    (tmp_path / "file").touch()
    with pytest.raises(ReplayError, match=r"cannot make .* on this node .*; set replay\.local_dir"):
        local_folder(str(tmp_path / "file"), tmp_path, "life", "shard-0")
    for folder in ("$NOT_SET/replay", "relative"):
        with pytest.raises(ReplayError, match=r"on this node .*: no absolute path"):
            local_folder(folder, tmp_path, "life", "shard-0")


def test_a_cluster_that_loses_nodes_with_their_disks_keeps_what_was_acknowledged(tmp_path):
    run = subprocess.run(
        [sys.executable, SCENARIO, tmp_path],
        cwd=CHECKOUT_ROOT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT_ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("lost node") == 2, run.stdout
