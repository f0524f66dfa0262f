"""Fixtures that several rooms share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytest puts this folder on the path, where tests/archer, tests/envs ... look like (namespace) packages of the rooms'
# names and hide them behind an editable install. A regular package on the path wins over those.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Two torch threads on busy cores run 10 to 100 times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this test session's own, with logical CPUs to spare; ended with the session."""
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
