"""Bring batches that other tools wrote (pandas, DuckDB, Polars, pyarrow) into `EPISODE_SCHEMA`."""

from __future__ import annotations

import pyarrow as pa

from buffer.episodes.schema import EPISODE_SCHEMA, LATER_COLUMNS, SCHEMA_VERSION, VERSION_KEY, later_column
from buffer.errors import SchemaError


def in_schema(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with the columns, types and version of `EPISODE_SCHEMA`, not yet validated.

    Other tools reorder and add columns, drop the metadata, and have other types for the same values (large lists and
    texts, dictionaries, 64-bit numbers). A value is never changed: a number that does not fit is refused.
    Raises SchemaError, which names the column, if the batch is of another version or cannot be cast.
    """
    version = (batch.schema.metadata or {}).get(VERSION_KEY, SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise SchemaError(f"episode schema version {version!r}; this version reads {SCHEMA_VERSION!r}")
    if batch.schema.equals(EPISODE_SCHEMA):
        return batch.replace_schema_metadata(EPISODE_SCHEMA.metadata)
    columns = []
    for field in EPISODE_SCHEMA:
        if field.name in batch.schema.names:
            columns.append(_cast(batch.column(field.name), field))
        elif field.name in LATER_COLUMNS:
            columns.append(later_column(field, batch.num_rows))
        else:
            raise SchemaError(f"column {field.name!r} ({field.type}) is missing")
    return pa.RecordBatch.from_arrays(columns, schema=EPISODE_SCHEMA)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        try:
            return column.cast(field.type)
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError):  # structs of another order, views, dictionaries within
            return pa.array(column.to_pylist(), field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0]
        raise SchemaError(f"column {field.name!r} is {column.type}, and does not fit {field.type}: {first}") from error
