"""Fixtures and settings that the tests of several rooms share."""

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# pytest adds this folder to the path. There, tests/archer, tests/envs ... are namespace packages with the names of the
# rooms, and hide an editable install. The repository's root before it makes the rooms win.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The packages that the tests import create a million objects that stay, and the garbage collector would look at them
# again and again. With its default threshold it takes a fifth of the time of collecting the tests.
gc.set_threshold(50_000, 20, 50)
# On busy cores, two torch threads run 10 to 100 times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray runs its workers, and so an engine, at niceness 15. Beside tests that compute, they would get a thirtieth of the
# time.
os.environ.setdefault("RAY_worker_niceness", "0")


LONG = ("end_to_end", "slow", "engine")
"""Markers of tests that start processes and wait for them."""


def _scope(nodeid: str) -> str:
    """Return what one process runs as a whole: a file, whose tests share an engine or data, or a test of end_to_end."""
    file = nodeid.split("::")[0]
    return nodeid if "/end_to_end/" in file else file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the scopes with the longest tests first, and then those with the most tests.

    If the long tests ran last, all processes but one would soon have nothing to do. While a process waits for Ray or an
    engine, the others compute. The order of the tests within a scope stays.
    """
    count: Counter[str] = Counter()
    rank: dict[str, int] = {}
    for item in items:
        scope = _scope(item.nodeid)
        count[scope] += 1
        marks = {mark.name for mark in item.iter_markers()}
        first = next((n for n, name in enumerate(LONG) if name in marks), len(LONG))
        rank[scope] = min(first, rank.get(scope, len(LONG)))
    # The scope's name keeps its tests together where two scopes are equal in both.
    keys = {scope: (rank[scope], -count[scope], scope) for scope in count}
    items.sort(key=lambda item: keys[_scope(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that hands out the scopes in the order of pytest_collection_modifyitems.

    Groups (--dist loadgroup) would do the same, but pytest-xdist 3.8 ignores them under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    config.option.loadscopereorder = False  # pytest-xdist would put the scopes with a single test last
    return ByScope(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this test process, with more logical CPUs than the machine has; ended with the session."""
    import ray

    _start_ray()
    yield
    ray.shutdown()


def _start_ray(attempts: int = 3) -> None:
    """Start a cluster. Ray gives its processes 30 seconds, a constant, in which busy cores may not start them."""
    import ray

    for left in reversed(range(attempts)):
        try:
            ray.init(
                address="local",
                num_cpus=8,
                include_dashboard=False,
                object_store_memory=256 << 20,
                log_to_driver=False,
            )
            return
        except Exception as error:  # Ray raises a bare Exception
            ray.shutdown()
            if left == 0 or "timed out during startup" not in str(error):
                raise


@pytest.fixture
def cluster_address(ray_cluster: None) -> str:
    """Return the value of RAY_ADDRESS that lets a run join the cluster of this test process.

    A cluster of its own costs a run 15 seconds of a core. That a run starts one, and ends it, is tested in
    end_to_end/test_loop.py.
    """
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a process group of one rank, once per session, because DeepSpeed keeps the first group that it sees.

    An inline run of an earlier test of this process has left its group, which is one of one rank too.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    rendezvous = tmp_path_factory.mktemp("group") / "store"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}.items():
            patch.setenv(name, value)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()
