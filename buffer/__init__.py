"""The replay service: episodes as Arrow tables, stored once, sampled by turn or by episode.

`ReplayService` starts shards and a limiter as Ray actors; `ReplayClient` (inside Ray) and `RemoteClient` (outside)
append and sample. Environments, rollouts and learning are in other rooms; this room imports none of them. Start reading
at `buffer.episodes.schema` for the table, then `buffer.service` and `buffer.client.base`.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "EPISODE_SCHEMA": "buffer.episodes.schema",
    "Episode": "buffer.episodes.schema",
    "batch_to_episodes": "buffer.episodes.schema",
    "episodes_to_batch": "buffer.episodes.schema",
    "validate": "buffer.episodes.validation",
    "SampleRequest": "buffer.sampling.request",
    "Sample": "buffer.sampling.sample",
    "Stats": "buffer.sampling.sample",
    "ReplayConfig": "buffer.config",
    "ReplayService": "buffer.service",
    "ReplayClient": "buffer.client.ray_client",
    "RemoteClient": "buffer.client.remote",
    "export": "buffer.archive",
    "read_archive": "buffer.archive",
    "ReplayError": "buffer.errors",
    "SchemaError": "buffer.errors",
    "ReplayTimeout": "buffer.errors",
    "DiskFullError": "buffer.errors",
    "LogError": "buffer.errors",
    "EmptyViewError": "buffer.errors",
}
"""The module of each public name, imported at its first use."""
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
