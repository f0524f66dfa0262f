"""`replay.replication=2`: a second copy of each shard's log on another node.

`replica` is the copy on disk, `transport` its Arrow Flight endpoint, `replicas` its process, which starts on another
node than the shard. On the shard's node `replicated_log` sends the log and recovers it, and `shard_side` connects that
to the shard's actor. `log_location` moves logs between the replay's folder and the nodes' disks. Outside this package
only `buffer.service`, `buffer.shard.actor`, `buffer.archive` and the configuration refer to it. Start reading at
`replica`.
"""
