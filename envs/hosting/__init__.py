"""Runs environments that block, hang or crash without disturbing the caller.

`async_env` awaits any environment and runs it inline, on a thread or in a child process, according to its spec.
`child_process` runs one environment in a child process and restarts the process if it hangs. Scheduling of many
episodes belongs to `actors`. Start with `AsyncEnv`.
"""
