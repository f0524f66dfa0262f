"""DeepSpeed engines, which train modules on any number of ranks, and the checkpoints of a run.

Start reading in `engines`: `Engine` trains a module, `FrozenEngine` evaluates one. `checkpoints` holds the content of
a checkpoint and `checkpoint_folders` the folders on disk, without importing torch. `accelerator` is the only module
that imports DeepSpeed. What engines train is in `learner.models`.
"""
