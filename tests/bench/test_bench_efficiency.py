"""Episodes-to-threshold, censoring, intervals and ratios from hand-made rows."""

from typing import Any

import numpy as np
import pytest

from bench.efficiency_figures import (
    Reached,
    curve,
    differing_keys,
    episodes_to_threshold,
    evaluation_return,
    mean_over_seeds,
    ratio,
)


def rows(*returns: float | None, size: int = 64) -> list[dict[str, Any]]:
    made, episodes = [], 0
    for number, value in enumerate(returns, start=1):
        episodes += 0 if value is None else size
        metrics = {"episodes": episodes} | ({} if value is None else {"return": value})
        made.append({"kind": "cycle", "cycle": number, "metrics": metrics})
    return made


def reached(*returns: float | None, size: int = 64) -> Reached:
    return episodes_to_threshold(*curve(rows(*returns, size=size)), threshold=-12.0)


def test_threshold_is_held_against_at_least_128_episodes() -> None:
    assert reached(-20, -10, -14, -11) == Reached(192, censored=False)  # -15, then -12: at the threshold counts
    assert reached(-5) == Reached(64, censored=True)  # too few episodes to say
    assert reached(-20, -5, size=200) == Reached(400, censored=False)  # one whole cycle is enough


def test_cycles_of_different_sizes_weigh_by_their_episodes() -> None:
    got = episodes_to_threshold(np.array([120, 130]), np.array([-20.0, 0.0]), threshold=-12.0)
    assert got == Reached(130, censored=True)


def test_run_that_never_gets_there_is_censored_at_its_last_count() -> None:
    assert reached(-20, -20, -20) == Reached(192, censored=True)
    with pytest.raises(ValueError, match="no cycle"):
        reached()


def test_offline_cycles_cost_no_episodes() -> None:
    assert reached(None, None, -10, -10) == Reached(128, censored=False)


def test_mean_over_seeds_says_where_it_is_a_lower_bound() -> None:
    figures = mean_over_seeds([Reached(100, False), Reached(300, False)])
    assert (figures["mean"], figures["low"], figures["high"], figures["censored"]) == (200, 100, 300, False)
    assert mean_over_seeds([Reached(100, False), Reached(300, True)])["censored"]


@pytest.mark.parametrize(("ppo", "archer", "bound"), [(0, 0, ""), (1, 0, ">"), (0, 1, "<"), (1, 1, "?")])
def test_ratio_names_which_way_it_is_bounded(ppo: int, archer: int, bound: str) -> None:
    got = ratio([Reached(800, bool(ppo))], [Reached(200, bool(archer))])
    assert got == {"mean": 4.0, "low": 4.0, "high": 4.0, "bound": bound}


def test_ratio_resamples_both_sides_and_repeats_itself() -> None:
    ppo, archer = [Reached(n, False) for n in (600, 1000)], [Reached(n, False) for n in (100, 300)]
    got = ratio(ppo, archer)
    assert (got["mean"], got["low"], got["high"]) == (4.0, 2.0, 10.0)
    assert ratio(ppo, archer) == got


def test_last_evaluation_of_a_name_counts() -> None:
    evaluations = [{"kind": "evaluation", "name": "final", "return_mean": value} for value in (-9.0, -4.0)]
    assert evaluation_return(evaluations, "final") == -4.0
    assert evaluation_return(evaluations, "clone") is None


def test_differing_keys_are_dotted() -> None:
    one = {"seed": 0, "learner": {"lr": 1.0, "steps": 2}}
    assert differing_keys(one, {"seed": 0, "learner": {"lr": 2.0}}) == ["learner.lr", "learner.steps"]
    assert differing_keys(one, one) == []
