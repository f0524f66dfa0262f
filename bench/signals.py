"""SIGTERM over the whole life of a run: the run says how to resume it, ends with 143, and a resume goes on.

An undisturbed run on the real stack shows the stages of a run's life: its start, cloning, each cycle with its broadcast
and checkpoint, the evaluations, the end. Each further run gets SIGTERM in one of them, at a moment drawn from the seed,
and is resumed to its end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import json
import random
from typing import Any, NamedTuple

import yaml

from archer.driver.run_folder import read_rows
from bench.chaos import CONFIG
from bench.chaos_run import GRACE_S, Driver, episode_ids

CYCLES = 2
_POLL_S = 0.05
SHORT_S = 0.3
"""A stage that is shorter counts to the one before it."""
MARKS = ("run folder", "passes of", "stage:", "cycle ", "evaluation of", "learning curve")
"""Lines that begin in one of these ways end a stage."""


class Stage(NamedTuple):
    """A part of a run's life: `number` lines of MARKS came before it, the last of them `after`; it takes `seconds`."""

    number: int
    after: str
    seconds: float


def main() -> None:
    """Run the program; its status is 1 if an end or a resume is unsound."""
    options = parser(__doc__)
    options.add_argument("--signals", type=int, help="runs that get a signal; 10, and 3 with --quick")
    options.add_argument("--inline", action="store_true", help="runs of one process; the JSON is signals-inline.json")
    options.add_argument("--folder", type=Path, help="folder for the runs, by default a temporary one")
    arguments = options.parse_args()
    count = arguments.signals or (3 if arguments.quick else 10)
    with tempfile.TemporaryDirectory(prefix="archer-signals-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        stages = undisturbed(make_driver(folder / "calm", arguments.seed, inline=arguments.inline))
        say(f"{len(stages)} stages, {sum(stage.seconds for stage in stages):.0f} s")
        rows = []
        for index, (stage, part) in enumerate(moments(stages, count, random.Random(arguments.seed)), start=1):
            driver = make_driver(folder / f"run-{index}", arguments.seed, inline=arguments.inline)
            rows.append(signalled(driver, stage, part))
            say(json.dumps(rows[-1]))
    columns = ("after", "at_s", "status", "end_s", "resumed", "cycles", "sound")
    print_table("SIGTERM", {name: name for name in columns}, [{**row, "sound": str(row["sound"])} for row in rows])
    sound = sum(row["sound"] for row in rows)
    variant = "-inline" if arguments.inline else ""
    path = report(
        "signals", arguments, rows, variant=variant, compact=True, sound=sound, of=len(rows), seed=arguments.seed
    )
    say(f"{sound} of {len(rows)} sound; wrote {path}")
    sys.exit(0 if sound == len(rows) else 1)


def make_driver(folder: Path, seed: int, *, inline: bool = False) -> Driver:
    """Return the driver of a small run in `folder`, not started."""
    folder.mkdir(parents=True, exist_ok=True)
    learner, rollout = dict(CONFIG["learner"]), dict(CONFIG["rollout"])
    learner |= {"ranks": 1, "restarts": 0, "clone": {"steps": 10, "batch": 16, "lr": 3e-3}}
    rollout |= {"workers": 1, "env_failure_limit": 3}
    tree = {**CONFIG, "name": "signals", "runs_dir": str(folder), "cycles": CYCLES, "seed": seed}
    tree |= {"learner": learner, "rollout": rollout, "replay": {"shards": 1}, "evaluation": {"episodes": 16}}
    if inline:
        tree["mode"] = "inline"
    config = folder / "signals.yaml"
    config.write_text(yaml.safe_dump(tree))
    return Driver(config, folder / "signals", folder / "log")


def undisturbed(driver: Driver) -> list[Stage]:
    """Run the driver to its end; return the stages of its life."""
    begun = time.monotonic()
    driver.start()
    times: list[tuple[str, float]] = [("the command", 0.0)]
    try:
        while driver.ended() is None:
            new = marks(driver)[len(times) - 1 :]
            times += [(line.replace(str(driver.folder), "RUN"), time.monotonic() - begun) for line in new]
            time.sleep(_POLL_S)
    finally:
        driver.end()
    if driver.ends[-1]["status"] != 0:
        raise SystemExit(f"the undisturbed run failed: {driver.ends[-1]['said']}")
    return stages_of(times, time.monotonic() - begun)


def stages_of(times: list[tuple[str, float]], end: float) -> list[Stage]:
    """Return the stages between lines, given with the time of each, and the end."""
    stages: list[Stage] = []
    for number, (line, at) in enumerate(times):
        seconds = (times[number + 1][1] if number + 1 < len(times) else end) - at
        if stages and seconds < SHORT_S:
            stages[-1] = stages[-1]._replace(seconds=stages[-1].seconds + seconds)
        else:
            stages.append(Stage(number, line[:40], seconds))
    return stages


def moments(stages: list[Stage], count: int, rng: random.Random) -> list[tuple[Stage, float]]:
    """Return `count` moments: a stage, each of them before any comes again, and the part of it that has passed."""
    drawn: list[Stage] = []
    while len(drawn) < count:
        drawn += rng.sample(stages, min(len(stages), count - len(drawn)))
    return [(stage, rng.random()) for stage in sorted(drawn)]


def marks(driver: Driver) -> list[str]:
    """Return the lines of the present process that end a stage."""
    return [line for line in driver.said() if line.startswith(MARKS)]


def signalled(driver: Driver, stage: Stage, part: float) -> dict[str, Any]:
    """Send SIGTERM when `part` of a stage has passed, resume the run, and return what was found."""
    try:
        driver.start()
        at = wait_for(driver, stage, part)
        driver.processes()
        begun = time.monotonic()
        status = driver.terminate()
        ended, end = round(time.monotonic() - begun, 1), driver.ends[-1]
        left = [name for name in driver.left(timeout_s=30.0) if name.startswith("process")]  # a resume drops the files
        driver.start()
        while driver.ended() is None:
            time.sleep(1.0)
        counted = [row["cycle"] for row in read_rows(driver.folder / "metrics.jsonl") if row["kind"] == "cycle"]
        ids = episode_ids(driver.folder / "replay")
        left += driver.left(timeout_s=30.0)
    finally:
        driver.end()
    resumed = driver.ends[-1]
    spoke = end["said"].startswith("archer: interrupted") and not end["traceback"]
    whole = counted == list(range(1, CYCLES + 1)) and len(ids) == len(set(ids))
    ends = status == 143 and ended < GRACE_S and spoke and not left
    return {
        "after": stage.after,
        "part": round(part, 3),
        "at_s": at,
        "status": status,
        "end_s": ended,
        "said": end["said"],
        "left": left,
        "resumed": resumed["status"],
        "cycles": len(counted),
        "sound": ends and resumed["status"] == 0 and whole,
    }


def wait_for(driver: Driver, stage: Stage, part: float) -> float:
    """Wait until `part` of a stage has passed, or the next one begins; return the seconds since the start.

    Raises SystemExit if the process ends before.
    """
    begun, entered = time.monotonic(), None
    while True:
        reached, now = len(marks(driver)), time.monotonic()
        if entered is None and reached >= stage.number:
            entered = now
        if entered is not None and (now >= entered + part * stage.seconds or reached > stage.number):
            return round(now - begun, 1)
        if driver.ended() is not None:
            raise SystemExit(f"the run ended before the signal: {driver.ends[-1]['said']}")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
