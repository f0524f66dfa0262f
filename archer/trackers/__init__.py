"""Trackers: copies of a run's curves for tools that compare runs. The field `tracking` names them.

`feed.TrackerFeed` turns the events of a run into calls of each tracker; `isolated.IsolatedTracker` makes these calls in
a thread of their own, so that a tracker that fails or is slow neither ends nor delays the run. The run folder does not
depend on them: metrics.jsonl has every figure. Start reading with `base`.
"""
