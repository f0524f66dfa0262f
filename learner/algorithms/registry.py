"""Builds the algorithm of a run by its name. The names and classes are declared by `learner.algorithm_config`."""

from __future__ import annotations

from importlib import import_module

from learner.algorithms.base import Algorithm
from learner.algorithms.setup import Setup


def build(name: str, setup: Setup) -> Algorithm:
    """Return the algorithm `name`, ready for its first step or for `load`."""
    module, _, attribute = setup.config.section_of(name).implementation.partition(":")
    algorithm: type[Algorithm] = getattr(import_module(module), attribute)
    return algorithm.build(setup)
