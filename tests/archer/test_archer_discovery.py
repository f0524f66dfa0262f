"""Service discovery over real HTTP."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable

import pytest
from ray.exceptions import ActorDiedError

from actors.errors import RolloutTimeout
from archer.driver.discovery import DiscoveryServer
from archer.errors import RunError
from buffer.errors import ReplayError


def get(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode(), answer.headers["Content-Type"]


def test_lists_every_target_with_labels_and_itself() -> None:
    growing = [("engine", "worker-0", "10.0.0.1:9001")]
    with DiscoveryServer("127.0.0.1", 0, run="demo") as server:
        assert len(server.targets()) == 1
        server.add_source("pool", lambda: growing)
        body, content_type = get(server.url)
        assert content_type == "application/json"
        groups = json.loads(body)
        assert {"targets": ["10.0.0.1:9001"], "labels": {"role": "engine", "name": "worker-0", "run": "demo"}} in groups
        own = next(group["targets"][0] for group in groups if group["labels"]["role"] == "driver")
        metrics, content_type = get(f"http://{own}/metrics")
        assert content_type.startswith("text/plain")
        assert "archer_discovery_source_failures" in metrics
        growing.append(("shard", "shard-0", "10.0.0.2:9001"))
        assert len(json.loads(get(f"http://{own}/")[0])) == 3
        server.clear()
        assert len(json.loads(get(f"http://{own}/")[0])) == 1


@pytest.mark.parametrize(
    "error", [TimeoutError("no answer within 5 s"), RolloutTimeout("no answer"), ActorDiedError(), ReplayError("gone")]
)
def test_source_that_fails_keeps_its_last_answer_and_is_counted(error: Exception) -> None:
    answers: list[list[tuple[str, str, str]]] = [[("shard", "shard-0", "a:1")]]

    def source() -> Iterable[tuple[str, str, str]]:
        if not answers:
            raise error
        return answers.pop()

    name = type(error).__name__
    with DiscoveryServer("127.0.0.1", 0, run="r") as server:
        server.add_source(name, source)
        assert len(server.targets()) == 2
        assert len(server.targets()) == 2
        metrics = get(f"http://127.0.0.1:{server.port}/metrics")[0]
        assert f'archer_discovery_source_failures_total{{source="{name}"}} 1.0' in metrics


def test_other_paths_are_not_found() -> None:
    with (
        DiscoveryServer("127.0.0.1", 0, run="r") as server,
        pytest.raises(urllib.error.HTTPError, match="404"),
    ):
        get(f"http://127.0.0.1:{server.port}/nothing")


def test_used_port_is_refused_with_its_number_and_its_field() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"port {port} .*metrics\.port"):
            DiscoveryServer("127.0.0.1", port, run="r")


def test_host_of_another_machine_is_refused() -> None:
    with pytest.raises(RunError, match=r"192\.0\.2\.1:0.*metrics\.host"):
        DiscoveryServer("192.0.2.1", 0, run="r")


def test_port_is_free_again_after_close() -> None:
    with DiscoveryServer("127.0.0.1", 0, run="r") as first:
        pass
    with DiscoveryServer("127.0.0.1", first.port, run="r") as second:
        assert second.port == first.port


def test_listening_everywhere_lists_an_address_that_answers() -> None:
    with DiscoveryServer("0.0.0.0", 0, run="r") as server:
        assert server.host != "0.0.0.0"
        own = json.loads(get(server.url)[0])[0]["targets"][0]
        assert own == f"{server.host}:{server.port}"
