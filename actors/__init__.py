"""The rollout side: vLLM engines that generate actions, and workers that play episodes and append them to replay.

`start_pool(WorkerArgs(...))` starts the workers and returns a `PoolClient`, through which the learner and the run
collect episodes, request fresh actions and send weights. Packages: `pool` (supervision and dispatch), `rollout` (one
worker and its episodes), `rendering` (text to tokens and back), `tools` (tool calls in the format of a chat template),
`engine` (one vLLM engine, the receiver of weights).
Training and the sending side of weights are in `learner`. Start with `actors/pool/client.py`.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "ActorError": "actors.errors",
    "EngineConfig": "actors.config",
    "PoolClient": "actors.pool.client",
    "RolloutConfig": "actors.config",
    "SamplingConfig": "actors.config",
    "WorkerArgs": "actors.rollout.player",
    "make_renderer": "actors.rendering.factory",
    "render_demonstration": "actors.rendering.factory",
    "start_pool": "actors.pool.pool",
}
"""The module of each public name, imported on first use: importing `actors` imports neither vllm nor ray nor torch."""
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
