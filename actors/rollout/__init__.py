"""One rollout worker: the Ray actor in `worker.py`, which owns an engine and plays episodes (`episode.py`).

`critic_choice.py` lets a critic pick among candidate actions, `coalescer.py` batches concurrent calls, and `results.py`
summarizes episodes. How many workers there are and what they play is decided in `actors.pool`. Start with `episode.py`.
"""
