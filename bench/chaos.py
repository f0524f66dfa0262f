"""A run under faults: every 20 seconds one of its processes is killed, stopped or cut off, or its disk is filled.

The run is real, in async mode, with two learner ranks, two engines and two shards. The victim and the way are drawn at
random from a seed: kill -9, SIGSTOP for 15 s, a cut of all its connections, or a full disk for 15 s; the driver is
among the victims, and is resumed. When the time is over the run is ended by SIGTERM, and resumed for three more cycles.
Then the program checks that the last cycle was reached, that replay holds every acknowledged episode once, that no
process and no file is left over, that memory and open files of no process grew, and that the final return is that of an
undisturbed run, within their intervals. With --quick the undisturbed run has one process. One that has ended in
--folder is not repeated.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import json
from collections import Counter
from typing import Any

import yaml

from bench.chaos_run import Driver, Faults, Sample, can_cut, episode_ids, own_disk

EVERY_S = 20.0
DISK_MB = 1024
GROWN_MB, GROWN_FILES = 200.0, 64
"""Growth of one process, from when it is settled to its end, that counts as a leak."""
SETTLED_CYCLES = 3
"""Cycles after which a process holds what it needs, however slow the machine is."""
LAST_CYCLES = 3
"""Cycles after the last fault. How many a disturbed run finishes before depends on the machine."""
MANY_CYCLES = 100_000

CONFIG: dict[str, Any] = {
    "name": "chaos",
    "mode": "async",
    "episodes_per_cycle": 32,
    "model": {"build": {"vocab_size": 512, "hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 192}},
    "env": {"id": "key_door", "kwargs": {"maps": 1}},
    "demonstrations": {"episodes": 256, "skill": 0.2},
    "rollout": {
        "workers": 2,
        "cpus_per_worker": 0.5,
        "sampling": {"max_tokens": 8},
        "engine": {"kv_cache_gib": 0.25, "startup_timeout_s": 900},
        "restart_limit": 100_000,
        "env_failure_limit": 1000,
    },
    "replay": {"shards": 2},
    "learner": {
        "ranks": 2,
        "cpus_per_rank": 0.5,
        "restarts": 100_000,
        "clone": {"steps": 40, "batch": 16, "lr": 3e-3},
        "critic": {
            "backbone": "policy",
            "value": "fresh",
            "unit": "episode",
            "batch": 16,
            "steps_per_cycle": 8,
            "warmup_cycles": 0,  # so that every cycle broadcasts
            "fresh_per_state": 4,
            "lr": 1e-3,
        },
        "actor": {"unit": "episode", "batch": 16, "steps_per_cycle": 2, "lr": 1e-5, "fresh_per_state": 4},
    },
    "evaluation": {"episodes": 64},
    "cluster": {"start_timeout_s": 600},
}
"""The actor's rate is small: the return of a disturbed run, which repeats cycles, stays comparable."""


def main() -> None:
    """Run the program; its status is 1 if a check fails."""
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, help="minutes of faults; 60, and 10 with --quick")
    options.add_argument("--cycles", type=int, help="cycles of the undisturbed run; 40, and 12 with --quick")
    options.add_argument("--folder", type=Path, help="folder for the two runs, by default a temporary one")
    arguments = options.parse_args()
    minutes = arguments.minutes or (10.0 if arguments.quick else 60.0)
    cycles = arguments.cycles or (12 if arguments.quick else 40)
    with tempfile.TemporaryDirectory(prefix="archer-chaos-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        with own_disk(folder / "disturbed", DISK_MB) as disk:
            cut = can_cut()
            faults = Faults(arguments.seed, disk=disk, cut=cut)
            driver = make_driver(folder / "disturbed", MANY_CYCLES, arguments.seed)
            try:
                checks = check(driver, disturb(driver, faults, minutes * 60))
                summary = json.loads((driver.folder / "summary.json").read_text())
            finally:
                driver.end()
        calm = undisturbed(folder / "calm", cycles, arguments.seed, inline=arguments.quick)
        checks["return"] = agreement(summary, calm)
    made = Counter(f"{row['way']} {row['victim']}" for row in faults.made)
    rows = [{"fault": name, "times": times} for name, times in sorted(made.items())]
    print_table("faults", {"fault": "fault", "times": "times"}, rows)
    shown = [{"check": name, "found": str(found["found"]), "sound": found["sound"]} for name, found in checks.items()]
    print_table("checks", {"check": "check", "found": "found", "sound": "sound"}, shown)
    more = {
        "minutes": minutes,
        "calm_cycles": cycles,
        "seed": arguments.seed,
        "disk_faults": disk,
        "cuts": cut,
        "checks": checks,
    }
    path = report("chaos", arguments, faults.made, compact=True, **more, drivers=driver.ends)
    say(f"wrote {path}")
    sys.exit(0 if all(found["sound"] for found in checks.values()) else 1)


def make_driver(folder: Path, cycles: int, seed: int, *, inline: bool = False) -> Driver:
    """Return the driver of a run in `folder`, not started."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "chaos.yaml"
    tree = {**CONFIG, "runs_dir": str(folder), "cycles": cycles, "seed": seed}
    if inline:
        tree |= {"mode": "inline", "learner": {**CONFIG["learner"], "ranks": 1}}
    config.write_text(yaml.safe_dump(tree))
    return Driver(config, folder / "chaos", folder.with_suffix(".log"))


def undisturbed(folder: Path, cycles: int, seed: int, *, inline: bool) -> dict[str, Any] | None:
    """Return the summary of the run that nothing disturbs; None if it failed. It has one process if `inline`."""
    driver = make_driver(folder, cycles, seed, inline=inline)
    ended = driver.folder / "summary.json"
    if not ended.exists():
        say(f"an undisturbed run of {cycles} cycles")
        try:
            driver.start()
            while driver.ended() is None:
                time.sleep(1.0)
        finally:
            driver.end()
        if driver.ends[-1]["status"] != 0:
            say(f"the undisturbed run failed: {driver.ends[-1]['said']}")
            return None
    summary: dict[str, Any] = json.loads(ended.read_text())
    say(f"its final return is {summary['final_return']:.2f}, after {summary['wall_seconds']:.0f} s")
    return summary


def disturb(driver: Driver, faults: Faults, seconds: float) -> int:
    """Run the driver, with a fault every 20 s for `seconds`, and resume it whenever it ends early; return its cycles.

    A fault waits while no rank runs, so that faults strike a run and not only its starts.
    """
    driver.start()
    first: float | None = None
    due, cycles = 0.0, MANY_CYCLES
    while True:
        status = driver.ended()
        if status == 0:
            return cycles
        if status is not None:
            if status == 2:
                raise SystemExit(f"the run refuses its arguments: {driver.ends[-1]['said']}")
            say(f"the driver ended with {status}: {driver.ends[-1]['said']}")
            driver.start(cycles)
        driver.watch()
        now = time.monotonic()
        if first is not None and now > first + seconds and cycles == MANY_CYCLES:
            status = driver.terminate()
            cycles = driver.cycle() + LAST_CYCLES
            say(f"no more faults; SIGTERM ended the driver with {status}, and the run goes on to cycle {cycles}")
            driver.start(cycles)
        if cycles != MANY_CYCLES or now < due or not driver.processes()["rank"]:
            time.sleep(1.0)
            continue
        if first is None:
            first, due = now, now + EVERY_S
            continue
        due = now + EVERY_S
        faults.strike(driver)
        say(f"{faults.made[-1]['at_s']:7.1f} s  {faults.made[-1]['way']} {faults.made[-1]['victim']}")


def agreement(summary: dict[str, Any], calm: dict[str, Any] | None) -> dict[str, Any]:
    """Return the final returns of both runs with their intervals, and whether these overlap."""
    if calm is None:
        return {"found": "the undisturbed run failed", "sound": False}
    (low, high), (calm_low, calm_high) = summary["final_interval"], calm["final_interval"]
    return {
        "found": [summary["final_return"], [low, high], calm["final_return"], [calm_low, calm_high]],
        "sound": low <= calm_high and calm_low <= high,
    }


def check(driver: Driver, cycles: int) -> dict[str, dict[str, Any]]:
    """Return for each check what was found, and whether it is sound."""
    left = driver.left(timeout_s=60.0)
    summary = json.loads((driver.folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (driver.folder / "metrics.jsonl").read_text().splitlines()]
    counted = [row["cycle"] for row in rows if row["kind"] == "cycle"]
    ids = episode_ids(driver.folder / "replay")
    missing, twice = driver.seen - set(ids), len(ids) - len(set(ids))
    grown = growth(driver.samples)
    crashed = [end for end in driver.ends if end["traceback"] or end["status"] not in (0, 1, 143, -9)]
    return {
        "last cycle": {"found": summary["cycles"], "sound": summary["cycles"] == cycles},
        "each cycle once": {"found": len(counted), "sound": counted == list(range(1, cycles + 1))},
        "acknowledged episodes missing": {"found": len(missing), "sound": not missing},
        "episodes twice in replay": {"found": twice, "sound": twice == 0},
        "episodes counted, and held": {
            "found": [summary["episodes"], len(ids)],
            "sound": summary["episodes"] <= len(ids),
        },
        "left over": {"found": left, "sound": not left},
        "processes that grew": {"found": grown, "sound": not grown},
        "ends without a sentence": {"found": crashed, "sound": not crashed},
        "restarts of ranks": {"found": (summary["restarts"] or {"times": 0})["times"], "sound": True},
        "drivers": {"found": len(driver.ends), "sound": True},
    }


def growth(samples: list[Sample]) -> list[dict[str, Any]]:
    """Return the processes that grew, from when they had seen `SETTLED_CYCLES` cycles to their last sample."""
    grown = []
    for pid in {sample.pid for sample in samples}:
        own = [sample for sample in samples if sample.pid == pid]
        settled = [sample for sample in own if sample.cycle >= own[0].cycle + SETTLED_CYCLES]
        if len(settled) < 2:
            continue
        first, last = settled[0], settled[-1]
        if last.rss_mb - first.rss_mb > GROWN_MB or last.files - first.files > GROWN_FILES:
            grown.append({"kind": first.kind, "first": asdict(first), "last": asdict(last)})
    return grown


if __name__ == "__main__":
    main()
