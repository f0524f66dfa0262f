"""One shard of the replay: a Ray actor that holds rows, draws from them and logs every append.

`shard.Shard` ties the parts together without network: `store` holds the rows in memory, `index` their numbers and the
samplers, `sum_tree` the priorities. `server` is its Arrow Flight endpoint, `actor` its process. The log is in
`buffer.log`, the second copy in `buffer.replication`. Start reading at `shard`.
"""
