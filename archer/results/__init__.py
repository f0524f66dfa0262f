"""The results of runs: statistics, summaries, pictures, and the evaluation of policies against each other.

How a run plays and learns lives in the other rooms. Start reading with `statistics` for the numbers, and with
`evaluation` for `archer eval`. Public names: `statistics.EvalResult`, `statistics.differences`,
`statistics.bootstrap_interval`, `summary.summarise`, `plots.learning_curve`, `plots.returns_plot`,
`policies.choose_policies`, `evaluation.play_policies`, `comparison.Comparison`.
"""
