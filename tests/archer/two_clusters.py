"""Run by test_archer_cluster: start a run's cluster while another one with a dashboard is on this machine.

Its own process, since the other tests are connected to a cluster already.
"""

import socket
import sys
import time
import urllib.error
import urllib.request

import ray
from ray.cluster_utils import Cluster
from ray.util.state.exception import RayStateApiException

from archer.config.loading import load_config
from archer.driver.cluster import cluster
from archer.driver.learner_job import environment


@ray.remote(num_cpus=0)
class Controller:
    def id(self) -> str:
        return ray.get_runtime_context().get_actor_id()


@ray.remote(num_cpus=0)
def found_dead(actor_id: str) -> bool:
    """Return whether Ray Train would consider a controller dead; it asks as the clean-up process of Ray Train does."""
    from ray.train.v2._internal.state.util import is_actor_alive

    try:
        return not is_actor_alive(actor_id, timeout=10)
    except RayStateApiException:
        return False  # no server answers, so Ray Train asks again


def wait_for_api_server(url: str) -> None:
    """Wait for the API server, which a cluster starts without waiting for it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=5)
            return
        except urllib.error.HTTPError:
            return  # the server requires a token
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no API server at {url}")


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = {"num_cpus": 1, "object_store_memory": 80 << 20, "dashboard_port": port}
    other = Cluster(initialize_head=True, head_node_args=head)
    wait_for_api_server(f"http://{other.webui_url}")
    with cluster(load_config("demo")) as api_server:
        controller = Controller.remote()
        actor_id = ray.get(controller.id.remote(), timeout=60)
        for name, server in (("the other's", f"http://{other.webui_url}"), ("the run's", api_server)):
            asked = found_dead.options(runtime_env=environment(server, 60.0))
            dead = ray.get(asked.remote(actor_id), timeout=60)
            print(f"{name}: {'dead' if dead else 'alive or unknown'}")
    other.shutdown()


if __name__ == "__main__":
    sys.exit(main())
