"""Fixtures and settings that the tests of several rooms share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# pytest adds this folder to the path. There, tests/archer, tests/envs ... are namespace packages with the names of the
# rooms, and hide an editable install. The repository's root before it makes the rooms win.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# On busy cores, two torch threads run 10 to 100 times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that runs the tests of a file in one process, because they share a cluster or an engine.

    The tests of end_to_end share nothing: each goes to the process that is free first. Groups (--dist loadgroup) would
    do the same, but pytest-xdist 3.8 ignores them under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return nodeid if "/end_to_end/" in file else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this test process, with more logical CPUs than the machine has; ended with the session."""
    import ray

    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=256 << 20,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a process group of one rank, once per session, because DeepSpeed keeps the first group that it sees."""
    import torch.distributed as dist

    rendezvous = tmp_path_factory.mktemp("group") / "store"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}.items():
            patch.setenv(name, value)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()
