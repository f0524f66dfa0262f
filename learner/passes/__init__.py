"""Forward passes: how rows of episodes become the tensors of one pass, and how models attend over them.

Start reading in `layout`: an encoder (`packed_encoder`, `separate_encoder`) turns rows (`rows`) into a `Layout`, which
every model of `learner.models` reads. `attention` holds masks and attention functions for packed passes, `precision`
the dtype of a pass. Losses are in `learner.losses`.
"""
