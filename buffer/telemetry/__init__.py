"""What the metrics of every process share: the HTTP endpoint that Prometheus reads, and the kinds of metrics that the
client library lacks.

The metrics themselves are declared in the module `metrics` of the package that measures them, and `docs/metrics.md`
lists them. Start reading with `buffer.telemetry.endpoint`.
"""
