"""Requests over the network: to a shard, to a replica, and bytes of strangers that are no requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
from hypothesis import strategies as st

from bench.fuzz_core import Probe, Target
from bench.fuzz_replay import memory_shard, sound_episode
from buffer.episodes.schema import episodes_to_batch
from buffer.replication.replica import Replica
from buffer.replication.transport import ReplicaServer
from buffer.shard.server import ShardServer

TOKEN = "the-token-of-the-fuzzed-server"
ANSWER_S = 600.0
"""Seconds for an answer on a busy machine. What computes for 10 s in this process counts as a hang before."""
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(2**80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def targets() -> list[Target]:
    """Return the targets of this module."""
    return [
        Target("flight-requests", 0.5, _requests),
        Target("flight-bytes", 0.05, _raw_bytes),
        Target("flight-replica", 0.3, _replica),
    ]


def _answered(call: Callable[[], Any]) -> None:
    """Run a request; errors are answers, but a server that is gone is a fault."""
    try:
        call()
    except flight.FlightUnavailableError as error:
        raise AssertionError(f"the server is gone: {error}") from error
    except (flight.FlightError, pa.ArrowException, OverflowError):
        return


@contextmanager
def _connected(server: ShardServer | ReplicaServer) -> Iterator[tuple[flight.FlightClient, flight.FlightCallOptions]]:
    """Yield a client of the server, and the options of a call with the token; end the server afterwards."""
    with flight.FlightClient(f"grpc+tcp://127.0.0.1:{server.port}") as client:
        headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
        try:
            yield client, flight.FlightCallOptions(timeout=ANSWER_S, headers=headers)
        finally:
            server.shutdown()


def _shard_of(folder: Path, episodes: int) -> ShardServer:
    """Return a server of a shard in memory with some episodes."""
    shard = memory_shard(folder)
    shard.append(episodes_to_batch([sound_episode(index) for index in range(episodes)]))
    return ShardServer(shard, token=TOKEN, on_append=lambda: None)


def _held(client: flight.FlightClient, options: flight.FlightCallOptions) -> int:
    """Return the number of episodes that the shard says it holds."""
    (stats,) = client.do_action(flight.Action("stats", b"{}"), options)
    return int(json.loads(stats.body.to_pybytes())["episodes"])


def _as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


_SAMPLERS, _UNITS = st.sampled_from(["uniform", "prioritised"]), st.sampled_from(["turn", "episode"])
_NEAR = st.fixed_dictionaries({}, optional={"min_version": st.integers(-1, 3), "min_return": st.floats(-3, 1)})
"""Filters that a client could mean."""
_ONLY = st.fixed_dictionaries({}, optional={"min_version": _JSON, "min_return": _JSON, "other": _JSON}) | _JSON


def _tickets() -> st.SearchStrategy[bytes]:
    """Return requests for rows: sound ones, ones with wrong values, and bytes."""
    drawn = st.fixed_dictionaries({"count": st.integers(0, 30), "unit": _UNITS, "seed": st.integers(0, 2**70)})
    sound = st.fixed_dictionaries({"only": _NEAR, "messages": st.booleans(), "draw": st.none() | drawn})
    wrong_draw = st.fixed_dictionaries(
        {"count": st.integers(-1, 2**70) | _JSON, "unit": _UNITS | _JSON},
        optional={"sampler": _SAMPLERS | _JSON, "seed": st.integers() | _JSON, "x": _JSON},
    )
    wrong = st.fixed_dictionaries({"only": _ONLY, "messages": _JSON, "draw": wrong_draw | _JSON})
    return (sound | wrong | _JSON).map(_as_bytes) | st.binary(max_size=40)


def _bodies() -> st.SearchStrategy[bytes]:
    """Return bodies of actions: sound ones, ones with wrong values, bytes, and very deep or long JSON."""
    sound = st.fixed_dictionaries({"only": _NEAR, "sampler": _SAMPLERS, "ids": st.lists(st.text(max_size=3))})
    wrong = st.fixed_dictionaries({"only": _ONLY, "sampler": _JSON, "ids": _JSON})
    deep_or_long = st.sampled_from([b"[" * 100_000, b"1" * 10_000])
    return (sound | wrong | _JSON).map(_as_bytes) | st.binary(max_size=60) | deep_or_long


def _send(client: flight.FlightClient, options: flight.FlightCallOptions, kind: str, name: str, data: bytes) -> None:
    """Make one request and read its whole answer."""
    if kind == "action":
        list(client.do_action(flight.Action(name, data), options))
    elif kind == "get":
        client.do_get(flight.Ticket(data), options).read_all()
    elif kind == "put":
        batch = pa.RecordBatch.from_arrays([pa.array([data])], names=["bytes"])
        writer, answers = client.do_put(flight.FlightDescriptor.for_path(name), batch.schema, options)
        with writer:
            writer.write_with_metadata(batch, pa.py_buffer(data))
            writer.done_writing()
            answers.read()
    elif name == "list":
        list(client.list_flights(data, options))
    elif name == "info":
        client.get_flight_info(flight.FlightDescriptor.for_command(data), options)
    else:
        list(client.list_actions(options))


@contextmanager
def _requests(folder: Path) -> Iterator[Probe]:
    """Actions, tickets and appends of a client that has the token."""
    known = st.sampled_from(["held", "returns", "known", "priorities", "stats"])
    names = known | known | st.sampled_from(["drop", ""]) | st.text(max_size=8)
    request = st.one_of(
        st.tuples(st.just("action"), names, _bodies()),
        st.tuples(st.just("get"), st.just(""), _tickets()),
        st.tuples(st.just("put"), st.sampled_from(["append", "x"]), st.binary(max_size=40)),
        st.tuples(st.just("other"), st.sampled_from(["list", "info", "actions"]), st.binary(max_size=20)),
    )
    with _connected(_shard_of(folder, 20)) as (client, options):

        def check(value: tuple[str, str, bytes]) -> None:
            _answered(lambda: _send(client, options, *value))
            assert _held(client, options) == 20

        yield Probe(request, check)


@contextmanager
def _replica(folder: Path) -> Iterator[Probe]:
    """Requests to a replica: nothing outside of its folder changes, whatever they name."""
    inside, outside = folder / "replica", folder / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    names = st.sampled_from(
        ["../outside/kept", "segment-000000000000000.arrow", "/etc/passwd", "segment-x.arrow", "..", ""]
    )
    numbers = st.sampled_from([-1, 0, 1, 2, 7, 2**63, 1.5, True, "1", "../outside", None])
    fields = {
        "epoch": numbers,
        "process": st.text(max_size=4),
        "segment": names | _JSON,
        "offset": numbers,
        "length": numbers,
    }
    request = st.fixed_dictionaries(
        {},
        optional={
            **fields,
            "life": _JSON,
            "segments": st.dictionaries(names, numbers, max_size=2) | _JSON,
            "new_epoch": _JSON,
        },
    )
    actions = st.sampled_from(["state", "read", "keep", "commit", "discard", "write"])

    with _connected(ReplicaServer(Replica(inside, fsync=False), token=TOKEN)) as (client, options):

        def check(value: tuple[str, dict[str, Any]]) -> None:
            name, asked = value
            _answered(lambda: list(client.do_action(flight.Action(name, _as_bytes(asked)), options)))
            assert [path.name for path in outside.iterdir()] == ["kept"]
            assert (outside / "kept").read_text() == "kept"
            assert sorted(path.name for path in folder.iterdir()) == ["outside", "replica"]
            assert all(path.name.removesuffix(".part").isdigit() for path in inside.iterdir())

        yield Probe(st.tuples(actions, request), check)


@contextmanager
def _raw_bytes(folder: Path) -> Iterator[Probe]:
    """Bytes that are not Flight, on a connection of a stranger: the server goes on answering the others."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = bytes.fromhex("000000040000000000")
    frame = st.tuples(
        st.integers(0, 300), st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=80)
    ).map(lambda f: f[0].to_bytes(3, "big") + bytes([f[1], f[2]]) + f[3].to_bytes(4, "big") + f[4])
    data = st.one_of(
        st.binary(max_size=200),
        st.lists(frame, max_size=5).map(lambda frames: preface + settings + b"".join(frames)),
        st.sampled_from([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", preface * 3]),
    )

    server = _shard_of(folder, 1)
    with _connected(server) as (client, options):

        def check(sent: bytes) -> None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_S) as stranger, suppress(OSError):
                stranger.sendall(sent)
                stranger.shutdown(socket.SHUT_WR)
            assert _held(client, options) == 1

        yield Probe(data, check)
