"""A real Prometheus beside a run, and questions to it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus"
WHY = "prometheus and promtool are not installed (on Debian: apt-get install --no-install-recommends prometheus)"
INTERVAL_S = 1


def need_prometheus() -> None:
    """Skip the test where Prometheus is not installed."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip(WHY)


def promtool(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run promtool and return what it prints. Fails with that if promtool does."""
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: Any) -> Any:
        """Return "data" of an answer of the API. Raises AssertionError with the server's message."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def value(self, query: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        return self.get("query", query=query)["result"]

    def until(self, query: str, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Return the series of a query as soon as there are any."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.value(query)):
            assert time.monotonic() < deadline, f"no series for {query}"
            time.sleep(0.2)
        return found


@contextmanager
def prometheus(folder: Path, runs: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the project's configuration and rules over the folder `runs`, at a shorter interval."""
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{INTERVAL_S}s", "evaluation_interval": f"{INTERVAL_S}s"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    (ours,) = [job for job in config["scrape_configs"] if job["job_name"] == "archer"]
    config["scrape_configs"] = [ours]
    discovery = ours["file_sd_configs"][0]
    discovery["files"] = [name.replace("../../runs", str(runs)) for name in discovery["files"]]
    discovery["refresh_interval"] = "1s"
    token = ours["authorization"]["credentials_file"]
    ours["authorization"]["credentials_file"] = token.replace("../../runs", str(runs))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        _wait_until_ready(server, process, folder / "prometheus.log")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
