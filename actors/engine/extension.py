"""The module that vLLM imports in each engine process (`worker_extension_cls`) before it loads the model.

The import registers the shared-memory receiver of weights and makes the process end with its worker. vLLM offers no
other hook that early.
"""

from __future__ import annotations

from actors.engine.process_guard import follow_owner
from actors.engine.weight_receiver import register_receivers

register_receivers()
follow_owner()


class EngineExtension:
    """Mixed into vLLM's worker class; adds no methods."""
