"""The address at which a process of the cluster listens."""

from __future__ import annotations

import ipaddress

from buffer.config import Listen

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening_address(listen: Listen = "auto") -> str:
    """Return the address at which a process listens and others reach it: loopback, or that of its node.

    With `auto` it is loopback as long as the Ray cluster has had one node only. Nodes that have died count, because
    another may take their place while this process still listens.
    """
    import ray  # late: a folder is served without Ray

    if listen == "loopback" or (listen == "auto" and len(ray.nodes()) == 1):
        return LOOPBACK
    return str(ray.util.get_node_ip_address())
