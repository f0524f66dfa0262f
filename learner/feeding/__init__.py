"""The data of each step: rows of episodes with fresh actions, split over the ranks.

Start reading in `feeder`, which draws from replay and requests fresh actions in advance (`fresh_actions`). `sweeps`
hands out a cycle's own episodes once, `demonstrations` those of behavioural cloning. What a row and a rank's `Batch`
are, and how rows become tensors, is in `learner.passes`.
"""
