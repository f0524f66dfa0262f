"""Random inputs against everything that reads what others write: no crash, no hang, no leak of what is hidden.

Environments' actions, rows and segments of the replay, files of episodes, Flight requests, configurations, imports and
chat templates. One process runs each target, so that a crash ends that process only. Needs the development packages:

    python bench/fuzz.py --quick             20,000 inputs
    python bench/fuzz.py                     one million; the figures in bench/results/fuzz.json
    python bench/fuzz.py --targets flight --inputs 5000 --seed 7
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil  # type: ignore[import-untyped]

from bench import common
from bench.fuzz_core import Progress, Target, run_atheris, run_hypothesis, write_findings

INPUTS, QUICK_INPUTS = 1_000_000, 20_000
NATIVE_LIMIT_S = 120.0
"""Processor time without a finished input after which a process is ended. Python's own code has a shorter bound."""
SILENT_S = 3600.0
"""Seconds without a finished input after which a process is ended: it waits for something that never comes."""
_CHECK_S = 0.2
RESTARTS = 10
"""Crashes and hangs of one target after which the rest of its inputs is left out."""


def targets() -> list[Target]:
    """Return every target."""
    from bench import fuzz_bytes, fuzz_envs, fuzz_flight, fuzz_rendering, fuzz_replay, fuzz_texts

    modules = (fuzz_envs, fuzz_replay, fuzz_flight, fuzz_texts, fuzz_rendering, fuzz_bytes)
    return [target for module in modules for target in module.targets()]


def named(name: str) -> Target:
    """Return a target. One of atheris is found without the imports of the others, which atheris could not follow."""
    from bench import fuzz_bytes

    of_bytes = {target.name: target for target in fuzz_bytes.targets()}
    return of_bytes[name] if name in of_bytes else {target.name: target for target in targets()}[name]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--inputs", type=int, help="inputs in all; the default is a million, with --quick 20,000")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="targets whose name begins with one of these")
    parser.add_argument("--child", nargs=4, metavar=("NAME", "INPUTS", "SEED", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    chosen = [t for t in targets() if not arguments.targets or t.name.startswith(tuple(arguments.targets))]
    if not chosen:
        parser.error(f"no target of these names; the targets are {', '.join(t.name for t in targets())}")
    total = arguments.inputs or (QUICK_INPUTS if arguments.quick else INPUTS)
    shares = sum(target.share for target in chosen)
    rows = []
    for target in chosen:
        rows.append(supervise(target, max(1, round(total * target.share / shares)), arguments.seed))
        row = rows[-1]
        common.say(f"{target.name}: {row['inputs']:,} inputs, {row['seconds']:.0f} s, {len(row['findings'])} faults")
        for found in row["findings"]:
            common.say(
                f"  {found['fault']} at {found['place']}: {found['says'][:300]}\n    input {found['input'][:300]}"
            )
    faults = sum(len(row["findings"]) for row in rows)
    inputs = sum(row["inputs"] for row in rows)
    path = common.report("fuzz", arguments, rows, inputs=inputs, faults=faults)
    table = [{**row, "faults": len(row["findings"])} for row in rows]
    columns = {"target": "target", "driver": "driver", "inputs": "inputs", "seconds": "s", "processor_s": "processor s"}
    common.print_table("Fuzzing", {**columns, "peak_mb": "peak MB", "faults": "faults"}, table)
    common.say(f"{inputs:,} inputs, {faults} faults; wrote {path}")
    sys.exit(1 if faults else 0)


def supervise(target: Target, inputs: int, seed: int) -> dict[str, Any]:
    """Run a target in processes of its own, another one after each crash or hang; return its row of the report."""
    begun, done, processor, peak = time.monotonic(), 0, 0.0, 0
    findings: list[dict[str, str]] = []
    for attempt in range(RESTARTS):
        with tempfile.TemporaryDirectory(prefix="archer-fuzz-") as name:
            folder = Path(name)
            progress = Progress(folder / "progress")
            arguments = (target.name, str(inputs - done), str(seed + 1000 * attempt), name)
            fault = watch([sys.executable, __file__, "--child", *arguments], folder / "log", progress)
            finished, shown = progress.read()
            done += finished
            if (folder / "findings.json").exists():
                report = json.loads((folder / "findings.json").read_text())
                findings += report["findings"]
                processor, peak = processor + report["processor_s"], max(peak, report["peak_mb"])
            if fault is not None:
                log = (folder / "log").read_text(errors="replace")[-3000:]
                findings.append({"fault": fault, "place": target.name, "says": log, "input": shown})
            if fault is None or done >= inputs:
                break
    return {
        "target": target.name,
        "driver": target.driver,
        "inputs": done,
        "seconds": round(time.monotonic() - begun, 1),
        "processor_s": round(processor, 1),
        "peak_mb": peak,
        "findings": findings,
    }


def watch(command: list[str], log_file: Path, progress: Progress) -> str | None:
    """Run one process to its end; return what went wrong with it, or None.

    A hang is measured in processor time, because a busy machine leaves little of it for a sound process.
    """
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0)
        last, since, used = (-1, ""), time.monotonic(), 0.0
        try:
            while process.poll() is None:
                time.sleep(_CHECK_S)
                now, total = progress.read(), _processor_s(process.pid)
                if now != last:
                    last, since, used = now, time.monotonic(), total
                elif total - used > NATIVE_LIMIT_S:
                    return f"no input finished within {NATIVE_LIMIT_S:g} s of processor time"
                elif time.monotonic() - since > SILENT_S:
                    return f"no input finished within {SILENT_S:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode == 0:
        return None
    code = process.returncode
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _processor_s(pid: int) -> float:
    """Return the processor time of a process, in seconds; 0 after its end."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def child(name: str, inputs: str, seed: str, folder: str) -> None:
    """Run one target in this process."""
    target = named(name)
    progress = Progress(Path(folder) / "progress")
    scratch = Path(folder) / "scratch"
    scratch.mkdir()
    run = run_hypothesis if target.driver == "hypothesis" else run_atheris
    run(target, int(inputs), int(seed), scratch, progress)
    write_findings(progress)


if __name__ == "__main__":
    main()
