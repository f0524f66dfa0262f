"""An environment of this project that observes chat messages."""

from __future__ import annotations

from env_cases import Counting


class Chat(Counting):
    def reset(self, *, seed, options=None):
        _, info = super().reset(seed=seed, options=options)
        return [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}], info
