"""Clients of the replay: append, sample, sweep, set priorities.

`base.BaseClient` holds what every client can do, over the connections of `shards.Shards`. `ray_client.ReplayClient` is
the client inside Ray, which waits for the limiter by `limiter_client`; `remote.RemoteClient` works without Ray, and
`local_client.LocalClient` holds the replay in its own process. Start reading at `base`.
"""
