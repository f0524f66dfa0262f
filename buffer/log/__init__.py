"""The log of a shard and the folders of a replay on disk.

`write_ahead` appends, recovers and drops segments; `frames` is the byte format of one append; `priorities` a file
beside the segments; `folders` the layout of a replay and of a checkpoint. Start reading at `write_ahead`.
"""

from buffer.log.folders import Manifest, read_manifest, shard_directory
from buffer.log.write_ahead import Recovery, Segment, WriteAheadLog, read_episodes, read_log

__all__ = [
    "Manifest",
    "Recovery",
    "Segment",
    "WriteAheadLog",
    "read_episodes",
    "read_log",
    "read_manifest",
    "shard_directory",
]
