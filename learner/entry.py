"""The entry point of a learner rank. Importing it loads neither torch nor DeepSpeed nor vLLM."""

from __future__ import annotations

from learner.train_args import TrainArgs


def run_rank(settings: dict[str, TrainArgs]) -> None:
    """Run one rank. Ray Train calls it on each rank with the dict {"args": ...}."""
    from learner.stages import train_function

    train_function(settings["args"])
