"""The parts of a run in the driver process: cluster, board, learner job, progress, run folder, initial model.

Evaluation and reports live in `archer.results`; the work of a run happens in `actors`, `buffer` and `learner`. Start
reading with `archer.run`, which connects these parts. Public names: `run_folder.RunFolder`, `run_folder.read_rows`,
`cluster.cluster`, `board.BoardPublisher`, `board.BoardFollower`, `targets.Targets`, `model.build_tiny_model`.
"""
