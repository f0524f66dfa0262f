"""The learning algorithms, one file each. Settings and names are in `learner.algorithm_config`.

Start reading in `base` (the interface `Algorithm`) and `phases` (`Draws` and `Sweep`, the data of a phase), then in
`archer`. `utterance_critic` and `on_policy` hold what several algorithms share, `setup` the models that they start
from, and `registry` builds an algorithm by its name. The trainer that calls them is `learner.train`.
"""
