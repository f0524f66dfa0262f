"""Arrow Flight between the processes of a run, without knowledge of rows.

`endpoint` is the client's side of any endpoint (retries, deadlines, errors), `serving` what every server shares (token,
errors), `discovery_files` and `actor_lookup` the two ways to find an endpoint of the replay. Its servers are in
`buffer.shard.server` and `buffer.replication.transport`. `memory_stream` has both sides of the weights' way to another
host. Start reading at `endpoint`.
"""
