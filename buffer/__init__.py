"""The replay service: episodes as Arrow, stored once, sampled by turn or by episode.

`schema` is the table everyone shares, `service` starts the shards and the limiter, `client` appends and
samples. This room imports no other room of the house.
"""
