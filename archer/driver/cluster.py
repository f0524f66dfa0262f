"""The Ray cluster that a run's processes live on: one that exists, or one started here for the run."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from archer.config.models import RunConfig
from archer.errors import RunError

_NO_SERVER = "127.0.0.1:0"


@contextmanager
def cluster(config: RunConfig) -> Iterator[str]:
    """Connect to `cluster.address` or RAY_ADDRESS, else start a cluster on this machine; disconnect at the end.

    Gives the URL of the cluster's API server, or one that nobody answers where it has none.

    Raises RunError where the cluster can't be reached, or is too small for the run.
    """
    # Ray would put every worker's prints and a notice for each version of its metrics agent on the terminal.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = config.cluster.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            context = ray.init(
                address="local",
                num_cpus=config.cluster.num_cpus or needed_cpus(config),
                object_store_memory=config.cluster.object_store_mb << 20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except ConnectionError as error:
        raise RunError(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or leave out "
            "cluster.address and RAY_ADDRESS to use this machine alone. If the cluster wants a token, set "
            "RAY_AUTH_MODE=token"
        ) from error
    try:
        _require_resources(config)
        yield f"http://{context.dashboard_url or _NO_SERVER}"
    finally:
        ray.shutdown()


def needed_cpus(config: RunConfig) -> int:
    """Logical CPUs of a cluster on which the processes of a run have room."""
    return math.ceil(_reserved_cpus(config))


def _reserved_cpus(config: RunConfig) -> float:
    """Logical CPUs that workers, ranks, shards with their replicas, and the limiter reserve."""
    rollout, learner, replay = config.rollout, config.learner, config.replay
    return (
        rollout.workers * rollout.cpus_per_worker
        + learner.ranks * learner.cpus_per_rank
        + (replay.shards * replay.replication + 1) * replay.cpus_per_shard
    )


def _require_resources(config: RunConfig) -> None:
    have = ray.cluster_resources()
    gpus = config.rollout.workers * config.rollout.gpus_per_worker + config.learner.ranks * config.learner.use_gpu
    for kind, need in (("CPU", _reserved_cpus(config)), ("GPU", gpus)):
        if have.get(kind, 0.0) < need:
            # Ray would wait for room without a word.
            raise RunError(
                f"the run reserves {need:g} {kind}s and the Ray cluster has {have.get(kind, 0.0):g}; add nodes, raise "
                "cluster.num_cpus where the run starts its own, or lower rollout.workers, learner.ranks or what each "
                "of them reserves"
            )
