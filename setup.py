"""List the packages of the wheel: the five rooms as they are on disk, and configs/ as `archer.presets`."""

from setuptools import find_namespace_packages, setup

ROOMS = ("actors", "archer", "buffer", "envs", "learner")

setup(
    packages=[
        *find_namespace_packages(
            include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")], exclude=["*.__pycache__"]
        ),
        "archer.presets",
        "archer.presets.paper",
    ],
    package_dir={"archer.presets": "configs"},
)
