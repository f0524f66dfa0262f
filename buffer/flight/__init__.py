"""Arrow Flight between the processes of the replay, without knowledge of rows.

`endpoint` is the client's side of any endpoint (retries, deadlines, errors), `serving` what every server shares (token,
errors), `discovery_files` and `actor_lookup` the two ways to find an endpoint. The servers themselves are in
`buffer.shard.server` and `buffer.replication.transport`. Start reading at `endpoint`.
"""
