"""Samples per insert: the process that makes inserts and samples wait for each other.

`limiter.Limiter` is the rule and the counts, `actor` the Ray actor around them, which also answers which shards there
are. A client's side is `buffer.client.limiter_client`, the settings are `buffer.config.ViewLimit`. Start reading at
`limiter`.
"""
