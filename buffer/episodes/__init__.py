"""The table of episodes, and its forms in memory and on the network.

`schema` defines the table and `Episode`, `validation` its rules, `wire` the layout of an append, `packing` the layout
of rows in memory and of samples. Start reading at `schema`.
"""

from buffer.episodes.schema import EPISODE_SCHEMA, Episode, batch_to_episodes, episodes_to_batch
from buffer.episodes.validation import validate

__all__ = ["EPISODE_SCHEMA", "Episode", "batch_to_episodes", "episodes_to_batch", "validate"]
