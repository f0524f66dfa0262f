"""The Ray cluster of a run: an existing one that the run joins, or one that it starts on this machine.

`cluster.start_timeout_s` bounds each wait here: for the cluster, and for room for the processes of the run.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from archer import signals
from archer.config.models import RunConfig
from archer.driver.packing import total
from archer.driver.room import require_room
from archer.errors import RunError


@contextmanager
def cluster(*configs: RunConfig) -> Iterator[None]:
    """Join the cluster at `cluster.address` or RAY_ADDRESS, else start one on this machine; leave it at the end.

    The cluster has room for each of `configs`, one after the other; the first one gives the settings of the cluster.
    Raises RunError if the cluster does not answer, or has no room for the run, within `cluster.start_timeout_s`.
    """
    # Otherwise Ray prints the output of every worker, and a notice for each version of its metrics agent.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        _connect(*configs)
        for config in configs:
            require_room(config)
        yield
    finally:
        ray.shutdown()


def _connect(*configs: RunConfig) -> None:
    """Join or start the cluster. Raises RunError."""
    settings = configs[0].cluster
    _bypass_proxies()
    address = settings.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        options["address"] = "local"
        options["num_cpus"] = max(config.cluster.num_cpus or math.ceil(total(config, "CPU")) for config in configs)
        options["object_store_memory"] = settings.object_store_mb << 20
        options["include_dashboard"] = False
    try:
        with _time_limit(settings.start_timeout_s):
            if address:
                _require_answer(_resolved(address), settings.start_timeout_s)
                ray.init(**options)
            else:
                _start_here(options)
        signals.rearm()
        return
    except (_TimeLimit, TimeoutError) as error:
        cause: BaseException = error
        reason = f"no answer within {settings.start_timeout_s:g} s (cluster.start_timeout_s)"
    except Exception as error:  # noqa: BLE001 - Ray raises a bare Exception if its raylet starts too late
        cause = error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if not address:
        raise RunError(f"Ray did not start on this machine: {reason}; see /tmp/ray/session_latest/logs") from cause
    raise RunError(
        f"cannot join the Ray cluster at {address}: {reason}; start one with `ray start --head`, or unset "
        "cluster.address and RAY_ADDRESS to use this machine alone. If the cluster requires a token, set "
        "RAY_AUTH_MODE=token"
    ) from cause


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Start Ray's own processes on loopback, where no other machine reaches them.

    It is Ray's own switch for macOS and Windows (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER), which Ray reads at its import.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _start_here(options: dict[str, Any]) -> None:
    """Start a cluster on this machine.

    Ray gives its first node 30 s, which are too few on a busy machine. It is tried again until the caller's time limit.
    """
    while True:
        before = _children()
        try:
            with _on_loopback():
                ray.init(**options)
            return
        except BaseException as error:
            for child in _children() - before:  # Ray leaves them running
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            if "timed out during startup" not in str(error):
                raise


def _children() -> set[int]:
    """Return the processes that this one has started and that still exist."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(child) for path in lists for child in path.read_text(encoding="ascii").split()}


def _bypass_proxies() -> None:
    """Except this machine from the proxies of the environment. The processes of the run inherit it, because
    environments may ask servers beside them."""
    own = ("localhost", "127.0.0.1", "::1", ray.util.get_node_ip_address())
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    joined = ",".join(dict.fromkeys((*names, *own)))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = joined


class _TimeLimit(BaseException):
    """Raised by `_time_limit`. Not an Exception, because Ray catches every Exception and retries."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TimeLimit in the block after `seconds`. Call it in the main thread."""

    def expire(*_: object) -> None:
        raise _TimeLimit

    handler = signal.signal(signal.SIGALRM, expire)
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining)
        signal.signal(signal.SIGALRM, handler)


def _resolved(address: str) -> str:
    """Return the address behind `auto`, the last cluster of this machine, which may have ended; others as they are."""
    if address != "auto":
        return address
    from ray._private.services import get_ray_address_from_environment  # late and private: Ray has no other way

    return get_ray_address_from_environment("auto", None) or address


def _require_answer(address: str, timeout_s: float) -> None:
    """Raise ConnectionError if no gRPC server listens at `address` (host:port), and TimeoutError if it does not answer.

    `ray.init` alone would try for minutes, in native code that no signal interrupts.
    """
    if not re.fullmatch(r"[^/]+:\d+", address) or os.environ.get("RAY_USE_TLS", "0") not in ("0", "false"):
        return
    import grpc  # late: only a run that joins a cluster needs it

    answered: Future[bool] = Future()

    def observe(state: grpc.ChannelConnectivity) -> None:
        final = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        if state in final and not answered.done():
            answered.set_result(state is grpc.ChannelConnectivity.READY)

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        channel.subscribe(observe, try_to_connect=True)
        if not answered.result(timeout_s):
            raise ConnectionError("connection failed")
