"""The metrics endpoint of a process over real HTTP, and the kinds of metrics that the client library lacks."""

import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from buffer.telemetry import endpoint
from buffer.telemetry.collectors import ArrayHistogram, BusyClock, FunctionCounter, process_registry
from buffer.telemetry.endpoint import EndpointError, Exposure


def get(address: str, path: str = "/metrics", token: str = "") -> str:
    request = urllib.request.Request(f"http://{address}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_an_endpoint_serves_the_registry_and_the_process_on_loopback_without_a_token() -> None:
    registry = process_registry()
    Counter("archer_test_things", "Things.", registry=registry).inc(3)
    address = Exposure(token="secret").serve(registry)
    assert address.startswith("127.0.0.1:")
    page = get(address)
    assert "archer_test_things_total 3.0" in page
    assert "process_resident_memory_bytes" in page
    assert "_created" not in page
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(address, "/nothing")


@pytest.mark.parametrize("given", ["", "wrong", "secret2", "\xe9"])
def test_beyond_the_machine_a_request_without_the_token_gets_nothing(given: str, monkeypatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    registry = CollectorRegistry()
    Counter("archer_test_secrets", "Secrets.", registry=registry)
    address = Exposure("0.0.0.0", "secret").serve(registry)
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        get(address, token=given)
    assert "archer_test" not in refused.value.read().decode()
    assert refused.value.headers["WWW-Authenticate"] == "Bearer"
    assert "archer_test_secrets_total" in get(address, token="secret")


def test_several_nodes_open_the_node_s_own_address_and_one_node_does_not(monkeypatch) -> None:
    nodes = [{"Alive": True}]
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    exposure = Exposure(None, "secret")
    assert exposure._addresses() == ("127.0.0.1", "127.0.0.1")
    nodes.append({"Alive": True})
    assert exposure._addresses() == ("10.0.0.7", "10.0.0.7")
    assert Exposure("0.0.0.0", "secret")._addresses() == ("0.0.0.0", "10.0.0.7")
    assert Exposure("127.0.0.1", "secret")._addresses() == ("127.0.0.1", "127.0.0.1")
    assert Exposure()._addresses() == ("127.0.0.1", "127.0.0.1"), "without a token nobody else may connect"
    with pytest.raises(EndpointError, match=r"metrics\.host=0\.0\.0\.0 .*token"):
        Exposure("0.0.0.0").serve(CollectorRegistry())


def test_an_address_of_another_machine_is_refused_with_its_field() -> None:
    with pytest.raises(EndpointError, match=r"192\.0\.2\.1 .*metrics\.host.*leave it null"):
        Exposure("192.0.2.1", "secret").serve(CollectorRegistry())


def test_the_token_is_in_no_text_of_an_exposure() -> None:
    assert "secret" not in repr(Exposure("0.0.0.0", "secret"))


def test_a_client_that_sends_nothing_is_dropped_and_hinders_no_scrape(monkeypatch) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.2)
    address = Exposure().serve(process_registry())
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as idle:
        assert "process_cpu_seconds_total" in get(address)
        assert idle.recv(1) == b"", "the endpoint closes a connection that asks for nothing"


def test_a_busy_clock_counts_overlapping_blocks_once_and_the_present_one(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = BusyClock()
    with clock:
        now[0] += 2
        with clock:
            now[0] += 3
            assert clock.seconds == 5
    now[0] += 50
    assert clock.seconds == 5
    with clock:
        now[0] += 1
        assert clock.seconds == 6


def test_an_array_histogram_counts_as_one_observation_at_a_time_would() -> None:
    registry = CollectorRegistry()
    histogram = ArrayHistogram("archer_test_lag_versions", "Lag.", ("phase",), (0, 1, 2.5), registry)
    histogram.observe(("actor",), np.array([0, 0, 1, 2, 3]))
    histogram.observe(("actor",), np.array([2, 9]), np.array([10, 1]))
    histogram.observe(("actor",), np.array([]))
    found = {
        sample.labels["le"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    }
    assert found == {"0.0": 2, "1.0": 3, "2.5": 14, "+Inf": 16}
    labels = {"phase": "actor"}
    assert registry.get_sample_value("archer_test_lag_versions_count", labels) == 16
    assert registry.get_sample_value("archer_test_lag_versions_sum", labels) == 6 + 29


def test_a_function_counter_is_a_counter_on_the_page() -> None:
    registry = CollectorRegistry()
    FunctionCounter("archer_test_turns", "Turns.", ("view",), lambda: {("critic",): 7}, registry)
    page = get(Exposure().serve(registry))
    (family,) = text_string_to_metric_families(page)
    assert (family.type, family.samples[0].name, family.samples[0].value) == ("counter", "archer_test_turns_total", 7)
