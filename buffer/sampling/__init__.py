"""Requests for samples, what shards draw for them, and the samples that clients return.

The records of draws and samples (`Draws`, `Held`, `Sample`, `Stats`) are in `buffer.sampling.sample`, which imports
Arrow; configuration reads the names below without it. How a shard chooses rows is in `buffer.shard.index`, how a client
splits a request over shards in `buffer.client.base`. Start reading at `request`.
"""

from buffer.sampling.request import RowFilter, Sampler, SampleRequest, Unit, View

__all__ = ["RowFilter", "SampleRequest", "Sampler", "Unit", "View"]
