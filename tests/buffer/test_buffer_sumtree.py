"""The sum tree against plain arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buffer.shard.sum_tree import SumTree

MASSES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(MASSES, st.integers(0, 150)), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_window_that_moves_on_holds_its_masses_and_their_sum(steps, seed):
    tree, model, first = SumTree(), np.empty(0), 0
    rng = np.random.default_rng(seed)
    for masses, drop in steps:
        tree.extend(np.array(masses))
        model = np.append(model, masses)
        changed = rng.integers(0, len(model), 7)
        model[changed] = values = rng.random(7)
        tree.set(first + changed, values)
        # numpy too lets the last of equal indices win.
        drop = min(drop, len(model))
        tree.drop(drop)
        model, first = model[drop:], first + drop
        assert (tree.first, tree.end) == (first, first + len(model))
        np.testing.assert_array_equal(tree.masses(np.arange(tree.first, tree.end)), model)
        assert tree.total == pytest.approx(model.sum(), rel=1e-12, abs=1e-300)


def test_draws_are_in_proportion_to_mass_and_never_of_none():
    rng = np.random.default_rng(0)
    tree = SumTree()
    tree.extend(np.ones(5000))
    tree.drop(3000)
    masses = rng.random(2000) ** 3
    masses[::7] = 0.0
    tree.set(np.arange(3000, 5000), masses)
    drawn = np.bincount(tree.draw(400_000, rng) - 3000, minlength=2000)
    assert drawn[::7].sum() == 0
    some = masses > 1e-3
    expected = 400_000 * masses[some] / masses.sum()
    freedom = some.sum() - 1
    statistic = ((drawn[some] - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_rounding_never_draws_a_turn_without_mass(scale):
    """The sum of a node and that of its children, added in another order, differ in their last digits."""
    tree = SumTree()
    masses = np.zeros(10_000)
    masses[[5, 64, 65, 4999]] = np.array([0.1, 0.2, 0.3, 1e-12]) * scale
    tree.extend(masses)
    drawn = np.unique(tree.draw(100_000, np.random.default_rng(1)))
    assert set(drawn) <= {5, 64, 65, 4999}
