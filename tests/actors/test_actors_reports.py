"""Reports over episodes: one entry per finished episode, in the order of the seeds."""

import numpy as np

from actors.rollout.results import EpisodeResult, summarize


def test_report_has_one_entry_per_finished_episode_in_the_order_of_seeds() -> None:
    results = [
        EpisodeResult(seed=1 << 33, ret=-3.0, success=False, turns=3, invalid_actions=1, action_tokens=30, version=2.0),
        EpisodeResult(seed=8, failure="EnvFailedError: the dice are lost"),
        EpisodeResult(seed=7, ret=-1.0, success=None, turns=1, action_tokens=5, version=2.0, window_truncated=True),
    ]
    report = summarize(results, seconds=2.0, lost=1, next_seed=9)
    assert report.seeds.tolist() == [7, 1 << 33]
    assert report.seeds.dtype == np.int64
    assert report.tokens.tolist() == [5, 30]
    assert report.tokens.dtype == np.int32
    assert report.action_tokens == 35
    assert report.returns.tolist() == [-1.0, -3.0]
    assert np.isnan(report.successes[0])
    assert report.successes[1] == 0.0
    assert (report.env_failures, report.failures) == (1, ["EnvFailedError: the dice are lost"])
    assert (report.window_truncations, report.lost, report.next_seed) == (1, 1, 9)


def test_report_without_episodes_has_empty_columns() -> None:
    report = summarize([], seconds=1.0, lost=0, next_seed=0)
    columns = (report.returns, report.successes, report.turns, report.seeds, report.tokens)
    assert [len(column) for column in columns] == [0] * 5
    assert report.action_tokens == 0
