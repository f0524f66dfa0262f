"""The Ray cluster of a run: an existing one that the run joins, or one that it starts on this machine.

`cluster.start_timeout_s` bounds each wait here: for the cluster, and for room for the processes of the run.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from archer.config.models import RunConfig
from archer.errors import RunError

_NO_SERVER = "127.0.0.1:0"


@contextmanager
def cluster(*configs: RunConfig) -> Iterator[str]:
    """Join the cluster at `cluster.address` or RAY_ADDRESS, else start one on this machine; leave it at the end.

    The cluster has room for each of `configs`, one after the other; the first one gives the settings of the cluster.
    Yields the URL of the cluster's API server, or a URL at which no server listens if the cluster has none. Raises
    RunError if the cluster does not answer, or has no room for the run, within `cluster.start_timeout_s`.
    """
    # Otherwise Ray prints the output of every worker, and a notice for each version of its metrics agent.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    settings = configs[0].cluster
    address = settings.address or os.environ.get("RAY_ADDRESS")
    try:
        context = _join(address, settings.start_timeout_s) if address else _start(configs)
        for config in configs:
            _require_total(config)
            _require_placement(config)
        yield f"http://{context.dashboard_url or _NO_SERVER}"
    finally:
        ray.shutdown()


def _join(address: str, timeout_s: float) -> Any:
    help_text = (
        "start one with `ray start --head`, or unset cluster.address and RAY_ADDRESS to use this machine alone. If the "
        "cluster requires a token, set RAY_AUTH_MODE=token"
    )
    try:
        with _time_limit(timeout_s):
            _require_answer(address, timeout_s)
            return ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (_TimeLimit, TimeoutError):
        raise RunError(
            f"the Ray cluster at {address} did not answer within {timeout_s:g} s (cluster.start_timeout_s); {help_text}"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"no Ray cluster answers at {address} ({reason}); {help_text}") from error


def _start(configs: Sequence[RunConfig]) -> Any:
    settings = configs[0].cluster
    try:
        with _time_limit(settings.start_timeout_s):
            return ray.init(
                address="local",
                num_cpus=max(config.cluster.num_cpus or needed_cpus(config) for config in configs),
                object_store_memory=settings.object_store_mb << 20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except _TimeLimit:
        raise RunError(
            f"a Ray cluster on this machine did not start within {settings.start_timeout_s:g} s; see the logs of "
            "gcs_server and raylet in /tmp/ray/session_latest/logs, or raise cluster.start_timeout_s"
        ) from None


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


def _reservations(config: RunConfig) -> list[tuple[str, int, dict[str, float]]]:
    """Return what the processes of a run reserve: (kind of process, number, resources of each)."""
    rollout, learner, replay = config.rollout, config.learner, config.replay
    return [
        ("rollout worker", rollout.workers, {"CPU": rollout.cpus_per_worker, "GPU": rollout.gpus_per_worker}),
        ("learner rank", learner.ranks, {"CPU": learner.cpus_per_rank, "GPU": float(learner.use_gpu)}),
        ("replay process", replay.shards * replay.replication + 1, {"CPU": replay.cpus_per_shard}),
    ]


def _total(config: RunConfig, resource: str) -> float:
    return sum(number * each.get(resource, 0.0) for _, number, each in _reservations(config))


def needed_cpus(config: RunConfig) -> int:
    """Return the number of logical CPUs of a cluster that has room for the processes of a run."""
    return math.ceil(_total(config, "CPU"))


def _require_total(config: RunConfig) -> None:
    """Raise RunError at once if all nodes together have less than the run reserves."""
    have = ray.cluster_resources()
    for resource in ("CPU", "GPU"):
        need = _total(config, resource)
        if have.get(resource, 0.0) < need:
            raise RunError(
                f"the run reserves {need:g} {resource}s and the Ray cluster has {have.get(resource, 0.0):g}; add "
                "nodes, raise cluster.num_cpus if the run starts its own cluster, or lower rollout.workers, "
                "learner.ranks or what each of them reserves"
            )


def _require_placement(config: RunConfig) -> None:
    """Reserve the resources of every process for a moment; raise RunError if no placement on the nodes exists.

    Ray itself waits without limit and without a message until there is room for an actor.
    """
    bundles = []
    for _, number, resources in _reservations(config):
        reserved = {name: amount for name, amount in resources.items() if amount > 0}
        bundles += [reserved] * number if reserved else []
    if not bundles:
        return
    group = placement_group(bundles)
    timeout_s = config.cluster.start_timeout_s
    try:
        if group.wait(timeout_s):
            return
    finally:
        remove_placement_group(group)
    processes = ", ".join(f"{number} x {kind} ({_text(each)})" for kind, number, each in _reservations(config))
    nodes = ", ".join(f"[{_text(node['Resources'])}]" for node in ray.nodes() if node["Alive"])
    raise RunError(
        f"the Ray cluster had no room for {processes} within {timeout_s:g} s (cluster.start_timeout_s). Its nodes have "
        f"{nodes}, and {_text(ray.available_resources())} are free; each process needs its resources on one node. Free "
        "some resources, add a node, or lower what the processes reserve"
    )


def _text(resources: dict[str, float]) -> str:
    """Return resources as text, for example "4 CPU, 1 GPU"."""
    return ", ".join(f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)) or "0 CPU"
