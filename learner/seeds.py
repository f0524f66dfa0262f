"""Environment seeds that the rooms agree on."""

EVALUATION_SEED = 1 << 30
"""The first environment seed of evaluations. No training run reaches it, and every evaluation starts here, so runs
compare on the same episodes."""
