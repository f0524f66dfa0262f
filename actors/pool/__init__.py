"""The pool of rollout workers: supervision, dispatch of episodes and requests, and the client.

`pool.py` is the Ray actor, with `start_pool`; `client.py` is the picklable handle of it. `supervisor.py` starts and
restarts workers, `dispatcher.py` plays `jobs.py` on them, `fresh_requests.py` answers requests for actions, and
`weight_sync.py` is the control plane of a broadcast. What happens inside one worker is in `actors.rollout`.
"""
