"""The spec of `WebShopHttp`, in a module that loads neither an HTTP client nor an HTML parser."""

from __future__ import annotations

from envs.base import EnvSpec

SPEC = EnvSpec(
    id="webshop_http",
    description="WebShop on a running server of its own code, by its pages.",
    max_turns=10,
    reward_range=(0.0, 1.0),
    isolation="thread",
)
