"""What a run keeps for people: some of its episodes by policy version, and the values that its steps used.

Replay forgets an episode, and a step forgets its values. This package writes a bounded sample of both into the folder
`history/` of the run, as Parquet files that pandas and DuckDB read; docs/viewer.md describes their columns.
`learner.history.folder` writes files, `learner.history.episodes` and `learner.history.values` are the two tables, and
`learner.history.recorder` is what the learner calls. Nothing here changes what a run learns.
"""
