"""Requests for samples, what shards draw for them, and the samples that clients return.

How a shard chooses rows is in `buffer.shard.index`, how a client splits a request over shards in `buffer.client.base`.
Start reading at `request`.
"""

from buffer.sampling.request import RowFilter, Sampler, SampleRequest, Unit, View
from buffer.sampling.sample import Draws, Held, Sample, Stats

__all__ = ["Draws", "Held", "RowFilter", "Sample", "SampleRequest", "Sampler", "Stats", "Unit", "View"]
