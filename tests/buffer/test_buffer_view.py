"""The filter of a view and the bound of its best share, against plain Python."""

import json
from dataclasses import asdict
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer.sampling.request import RowFilter, SampleRequest, least_of_best

NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e9, 1e9))


@given(returns=st.lists(NUMBERS, min_size=1, max_size=60), percent=st.integers(1, 100))
def test_the_best_share_is_its_ceiling_of_episodes_and_all_that_tie(returns, percent):
    least = least_of_best(np.array(returns), percent / 100)
    rank = -(-percent * len(returns) // 100)
    assert least == sorted(returns, reverse=True)[rank - 1]
    assert sum(value > least for value in returns) < rank <= sum(value >= least for value in returns)


@pytest.mark.parametrize(("share", "episodes", "rank"), [(0.1, 30, 3), (0.07, 100, 7), (1e-9, 5, 1), (1.0, 5, 5)])
def test_the_share_is_taken_as_written(share, episodes, rank):
    assert Decimal(str(share)) * episodes <= rank
    assert least_of_best(np.arange(float(episodes)), share) == episodes - rank
    assert least_of_best(np.arange(float(episodes)), np.float64(share)) == episodes - rank


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0001, float("nan"), float("inf"), 10])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"best=.*above 0 and at most 1"):
        SampleRequest(5, best=share)


@given(
    rows=st.lists(st.tuples(st.integers(-1, 4), NUMBERS), max_size=30),
    min_version=st.none() | st.integers(-1, 4),
    min_return=st.none() | NUMBERS,
)
def test_rows_pass_a_filter_as_plain_python_says_also_after_a_journey_as_json(rows, min_version, min_return):
    only = RowFilter(**json.loads(json.dumps(asdict(RowFilter(min_version, min_return)))))
    versions = np.array([version for version, _ in rows], np.int32)
    returns = np.array([ret for _, ret in rows], np.float64)
    want = [
        place
        for place, (version, ret) in enumerate(rows)
        if (min_version is None or (version >= min_version and version != -1))
        and (min_return is None or ret >= min_return)
    ]
    assert only.rows(versions, returns).tolist() == want
    if only.everything:
        assert len(want) == len(rows)


def test_a_filter_says_what_it_asks_for():
    assert str(RowFilter()) == ""
    assert str(RowFilter(-1)) == " with every token of version 0 or later"
    assert str(RowFilter(2, -7.5)) == " with every token of version 2 or later with a return of -7.5 or more"


def test_a_view_and_its_version_go_together():
    assert RowFilter.of_view("critic", None) == RowFilter()
    assert RowFilter.of_view("actor", 3) == RowFilter(min_version=3)
    for view, min_version in (("actor", None), ("critic", 3)):
        with pytest.raises(ValueError, match="the actor view takes one, the critic view none"):
            RowFilter.of_view(view, min_version)
    with pytest.raises(ValueError, match="no view 'policy'; the views are critic, actor"):
        RowFilter.of_view("policy", None)
