"""The requests that a shard answers, without the network: `server` receives them by Flight, a local client calls them.

The forms of requests and answers are those that `server` describes.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.episodes.wire import to_lists
from buffer.errors import ReplayError, SchemaError
from buffer.sampling.request import RowFilter
from buffer.sampling.sample import PRIORITY_UPDATE, Draws
from buffer.shard.shard import Shard

MOST_DRAWS = 1 << 22
"""Turns or episodes of one draw. A larger draw would keep the shard from its other requests for seconds."""


def append(shard: Shard, wire: pa.RecordBatch) -> int:
    """Store a batch of `WIRE_SCHEMA`; returns how many rows were new. Raises SchemaError and as `Shard.append` does."""
    try:
        wire.validate(full=True)  # before `to_lists` reads the memory that the client's offsets name
    except pa.ArrowInvalid as error:
        raise SchemaError(f"the batch is damaged: {str(error).splitlines()[0]}") from error
    return shard.append(to_lists(wire))


def take(shard: Shard, ticket: dict[str, Any]) -> tuple[Draws, Iterator[pa.RecordBatch]]:
    """Sample or sweep; returns the draws and the distinct rows. Raises ReplayError for a draw above MOST_DRAWS."""
    only, draw = RowFilter(**ticket["only"]), ticket["draw"]
    if draw is None:
        return shard.sweep(only, messages=bool(ticket["messages"]))
    if draw["count"] > MOST_DRAWS:
        raise ReplayError(f"a draw of {draw['count']:,}; one request draws at most {MOST_DRAWS:,}, so draw in parts")
    return shard.draw(only=only, messages=bool(ticket["messages"]), **draw)


def answer(shard: Shard, action: str, body: bytes) -> bytes:
    """Answer an action. Raises ReplayError if there is no such action."""
    if action == "stats":
        return json.dumps(asdict(shard.counts())).encode()
    if action == "priorities":
        update = np.frombuffer(body, PRIORITY_UPDATE)
        known = shard.update_priorities(update["seq"], update["turn"], update["priority"])
        return json.dumps({"known": known}).encode()
    if action not in ("held", "returns", "known"):
        actions = "held, returns, known, priorities and stats"
        raise ReplayError(f"no action {action!r}; the actions of a shard are {actions}")
    request = json.loads(body)
    with shard.reading() as store:
        if action == "known":
            return json.dumps({"known": [episode_id in store.ids for episode_id in request["ids"]]}).encode()
        only = RowFilter(**request["only"])
        if action == "returns":
            return store.index.returns(only).tobytes()
        return json.dumps(asdict(store.index.held(only, request["sampler"]))).encode()
