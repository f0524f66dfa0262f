"""The learning algorithms, one file each. Settings and names are in `learner.algorithm_config`.

Start reading in `base` (the interface `Algorithm`, and `build`, which finds one by its name) and `phases` (`Draws` and
`Sweep`, the data of a phase), then in `archer`. `utterance_critic` and `on_policy` hold what several algorithms share,
`setup` the models that they start from. The trainer that calls them is `learner.train`.
"""
