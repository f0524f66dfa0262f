"""Seconds from a request to the last byte of each page of the viewer, at 100,000 episodes in one run.

The run is made up (`bench/viewer_data.py`), its files are real. A server in a process of its own answers over a real
socket; each page is asked for with other values each time, so that no answer can be one that was kept. A busy machine
changes the processor's milliseconds of the server less than those on the clock. The second table has the seconds of the
first index, the size of the files, and the memory of the server.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first
from bench.viewer_data import WORDS, MadeRun, write_run

AIM_MS = 200.0
_PER_CYCLE = 500
_WAIT_S = 600.0


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, help="folder for the made-up run; one that is in it is used again")
    arguments = options.parse_args()
    episodes = 5_000 if arguments.quick else 100_000
    repeats = 5 if arguments.quick else 21
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.folder or Path(folder)
        made = MadeRun("made", cycles=episodes // _PER_CYCLE, episodes=_PER_CYCLE, every=10, seed=arguments.seed)
        if not (root / made.name).exists():
            say(f"writing {episodes:,} episodes")
            write_run(root, made)
        written = sum(path.stat().st_size for path in (root / made.name).rglob("*") if path.is_file())
        with served(root) as (client, process):
            started = time.perf_counter()
            held = _indexed(client)
            indexed = time.perf_counter() - started
            rows = [_timed(name, call, process, repeats) for name, call in pages(client, held).items()]
            memory = process.memory_info().rss
    title = f"milliseconds of a page, {held:,} episodes; aim: {AIM_MS:.0f}"
    columns = {"median_ms": "median", "slowest_ms": "slowest", "processor_ms": "processor, mean", "kb": "kB"}
    print_table(title, {"page": "page", **columns}, rows)
    index = {"index_s": round(indexed, 2), "files_mb": round(written / 1e6, 1), "server_mb": round(memory / 1e6)}
    print_table("index", {"index_s": "seconds", "files_mb": "MB of files", "server_mb": "MB of server"}, [index])
    report("viewer", arguments, rows, episodes=held, **index)


def pages(client: httpx.Client, held: int) -> dict[str, Callable[[int], Any]]:
    """Return the pages: each takes the number of its repeat and asks for it with values of its own."""
    listed = client.get("/api/episodes", params={"limit": "200", "sort": "seed", "stage": "training"}).json()["rows"]

    def episodes(**asked: Callable[[int], str]) -> Callable[[int], Any]:
        return lambda i: client.get("/api/episodes", params={name: value(i) for name, value in asked.items()})

    def episode(i: int) -> Any:
        row = listed[7 * i % len(listed)]
        return client.get("/api/episode", params={name: row[name] for name in ("run", "file", "row")})

    return {
        "the page itself": lambda i: client.get("/"),
        "runs": lambda i: client.get("/api/runs"),
        "run": lambda i: client.get("/api/run", params={"run": "made"}),
        "facets": lambda i: client.get("/api/facets"),
        "episodes, newest": episodes(offset=lambda i: str(50 * i)),
        "episodes, filtered": episodes(
            success=lambda i: "no", min_version=lambda i: str(i), max_return=lambda i: "-4", sort=lambda i: "return"
        ),
        "episodes, searched": episodes(q=lambda i: f"{WORDS[i % len(WORDS)]} metal"),
        "episodes, searched and filtered": episodes(q=lambda i: WORDS[i % len(WORDS)], success=lambda i: "yes"),
        "episodes, search without a match": episodes(q=lambda i: f"nothing {i}"),
        "episodes, last page": episodes(offset=lambda i: str(held - 50 - i), sort=lambda i: "turns"),
        "one episode": episode,
    }


def _timed(name: str, call: Callable[[int], Any], server: psutil.Process, repeats: int) -> dict[str, Any]:
    call(repeats)  # once before it counts
    seconds, size, before = [], 0, sum(server.cpu_times()[:2])
    for i in range(repeats):
        started = time.perf_counter()
        answer = call(i)
        seconds.append(time.perf_counter() - started)
        answer.raise_for_status()
        size = max(size, len(answer.content))
    processor = sum(server.cpu_times()[:2]) - before
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "page": name,
        "median_ms": round(1e3 * median, 1),
        "slowest_ms": round(1e3 * max(seconds), 1),
        "processor_ms": round(1e3 * processor / repeats, 1),
        "kb": round(size / 1e3, 1),
        "within_aim": 1e3 * median <= AIM_MS,
    }


def _indexed(client: httpx.Client) -> int:
    """Wait until the server has read every file, and return the number of episodes."""
    deadline = time.monotonic() + _WAIT_S
    before = -1
    while time.monotonic() < deadline:
        content = client.get("/api/runs").json()
        held = content["runs"][0]["held"]
        if held and content["waiting"] == 0 and held == before:
            return held
        before = held
        time.sleep(0.1)
    raise TimeoutError(f"the server has not read all files within {_WAIT_S:g} s")


@contextmanager
def served(root: Path) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Run `archer view` on the folder, and yield a client of it and its process."""
    command = [sys.executable, "-m", "archer.cli", "view", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            line = next(itertools.islice(process.stdout, 1), "")
            address = line.rpartition(" at ")[2].strip()
            if not address:
                raise RuntimeError("archer view did not start")
            with httpx.Client(base_url=address, timeout=60.0, trust_env=False) as client:
                yield client, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=30)


if __name__ == "__main__":
    main()
