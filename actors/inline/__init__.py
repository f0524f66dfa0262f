"""Rollouts in the process of the learner, for small models: no Ray, no vLLM, one Hugging Face model.

`rollouts.InlineRollouts` takes the place of `actors.pool.client.PoolClient`; `engine.InlineEngine` that of an engine.
`cache.Slots` keeps the keys and values of the episodes in flight, and `tree.sample_tree` samples many actions at many
states with shared prefixes. Start with `engine.py`.
"""
