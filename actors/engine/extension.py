"""Imported by vLLM in each engine process, through `worker_extension_cls`, before the model is loaded.

Importing it registers our receiver of weights and ties the process to its worker's life: vLLM offers no other hook
that early.
"""

from __future__ import annotations

from actors.engine.process_guard import follow_owner
from actors.engine.weight_receiver import register_receivers

register_receivers()
follow_owner()


class EngineExtension:
    """Mixed into vLLM's worker class. It adds no calls of its own."""
