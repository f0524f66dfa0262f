"""Algorithms, one file each, behind `learner.algorithms.base.Algorithm`."""
