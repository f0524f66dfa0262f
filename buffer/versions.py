"""Versions of the episode schema, and how batches of older ones become the present one.

The log, checkpoints, exports and data sets carry the version in their schema's metadata. A change of
`EPISODE_SCHEMA` raises `SCHEMA_VERSION` by one and adds the step that leads to it: whatever version 1 wrote is read for
good (tests/buffer/test_buffer_versions.py reads files that it wrote).
"""

from collections.abc import Callable, Mapping

import pyarrow as pa

from buffer.episodes.schema import SCHEMA_VERSION, VERSION_KEY
from buffer.errors import LogError

Step = Callable[[pa.RecordBatch], pa.RecordBatch]

STEPS: Mapping[int, Step] = {}
"""The step from each version to the next one."""


def upgraded(
    batch: pa.RecordBatch, where: str, steps: Mapping[int, Step] = STEPS, present: bytes = SCHEMA_VERSION
) -> pa.RecordBatch:
    """The batch in the present version. Raises LogError where it has none, or one from the future."""
    version = version_of(batch.schema, where, present)
    while version < int(present):
        batch = steps[version](batch)
        version += 1
        metadata = {**(batch.schema.metadata or {}), VERSION_KEY: str(version).encode()}
        batch = batch.replace_schema_metadata(metadata)
    return batch


def version_of(schema: pa.Schema, where: str, present: bytes = SCHEMA_VERSION) -> int:
    """The version that a schema says it has. Raises LogError as `upgraded` does."""
    text = (schema.metadata or {}).get(VERSION_KEY)
    if text is None or not text.isdigit() or int(text) < 1:
        raise LogError(f"{where} says no version of the episode schema ({text!r}), so it was not written by ArCHer")
    if int(text) > int(present):
        raise LogError(
            f"{where} was written with episode schema {text!r}, this ArCHer reads up to {present!r}; use the version "
            "of ArCHer that wrote it, or a later one"
        )
    return int(text)
