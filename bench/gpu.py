"""Measure the learner's passes and steps on one GPU: whether they are right, how fast, in how much memory.

It needs torch, transformers, peft and pyarrow, and no Ray, vLLM, DeepSpeed or pydantic, because a machine that is lent
with a GPU may have no more. Weights are random, in the shapes of published models, so nothing is downloaded.

    python bench/gpu.py --save            # seven minutes; writes bench/results/gpu-DEVICE.json
    python bench/gpu.py --quick           # small models, for a CPU

The cases are in the order of their value (`gpu_cases.py`). When `--budget` is over, the rest is left out, and the
report says so. A case that runs out of memory, or fails, is a row of the report, which is written after each case.
"""

from __future__ import annotations

import contextlib
import gc
import re
import signal
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import RESULTS, parser, report, say  # isort: skip - sets the threads first

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from archer.planning.counting import PeakBytes
from bench.gpu_cases import Case, all_cases, quick_cases
from bench.gpu_checks import all_checks
from bench.gpu_meters import measured_rate, planned_memory, published_rate, step_flops
from bench.gpu_models import made_base, made_parts, random_micro_batches, shape_of
from bench.gpu_profile import profiled
from bench.gpu_steps import MicroBatches, Stepper, synchronize

BUDGET_S = 420.0
# After the budget, the case that runs has this long to end.
GRACE_S = 50.0
REPEATS, REPEATS_S = 3, 12.0
GIB = 2.0**30
# A case is not tried if the plan predicts more than this many times the device's memory.
HOPELESS = 1.25

AIMS = {
    "model FLOPs utilisation of LoRA at 7B": 0.40,
    "largest error of the planned memory": 0.10,
    "published: prime-rl, LoRA at 4B on one H100, 16k and 65k tokens": [0.217, 0.374],
}


class OverBudgetError(Exception):
    """The case that ran at the end of the budget did not end soon after."""


class Bench:
    """The device, its rates, and the frozen model that consecutive cases share."""

    def __init__(self, device: torch.device, *, quick: bool) -> None:
        self.device = device
        self.published = published_rate(device)
        self.measured = measured_rate(device, 256 if quick else 8192)
        on_gpu = device.type == "cuda"
        self.memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else None
        self._base: tuple[tuple[object, ...], PreTrainedModel] | None = None

    def row(self, case: Case) -> dict[str, Any]:
        """Return the row of a case: its figures, or why it has none."""
        config = shape_of(case.size)
        batches = random_micro_batches(
            config.vocab_size, tokens=case.tokens, turns=case.turns, micro_tokens=case.micro_tokens
        )
        planned = planned_memory(config, case.settings, case.trains, batches)
        row = {
            **case.row(),
            "outcome": "measured",
            "planned_gib": planned.total / GIB,
            "planned_parts_gib": {name: size / GIB for name, size in planned.device.items()},
        }
        if self.memory is not None and planned.total > HOPELESS * self.memory:
            return row | {"outcome": f"not tried: planned for {planned.total / GIB:.0f} GiB"}
        row |= self._attempt(case, config, batches, planned.total)
        # Not in the attempt: an error that is being handled holds the frames, and they the tensors.
        if case.compiled:
            torch.compiler.reset()
        self._release(keep=case.adapters)
        return row

    def _attempt(self, case: Case, config: PreTrainedConfig, batches: MicroBatches, planned: float) -> dict[str, Any]:
        """Return the figures of a case, or its outcome."""
        try:
            return self._measured(case, config, batches, planned)
        except torch.OutOfMemoryError:
            return {"outcome": "out of memory"}
        except OverBudgetError:
            return {"outcome": "over the budget"}
        except Exception as error:  # noqa: BLE001  a kernel or compiler may raise anything, and the others must run
            text = str(error).strip()
            return {"outcome": f"failed: {type(error).__name__}: {text.splitlines()[0][:300] if text else ''}"}

    def _measured(self, case: Case, config: PreTrainedConfig, batches: MicroBatches, planned: float) -> dict[str, Any]:
        torch.manual_seed(0)
        base = self._base_of(case, config)
        with self.device:
            stepper = Stepper(made_parts(base, case.settings, case.trains), case.trains, case.settings)
        if case.compiled:
            stepper.compile_layers()
        flops = step_flops(stepper, base, batches)
        first = self._seconds(stepper, batches)
        peak = self._peak(stepper, base, batches)
        times: list[float] = []
        while len(times) < REPEATS and sum(times) < REPEATS_S:
            times.append(self._seconds(stepper, batches))
        seconds = statistics.median(times)
        tokens = sum(row.size for rows in batches for row in rows)
        rate = self.published or self.measured
        found = {
            "parameters_billions": sum(p.numel() for p in base.parameters()) / 1e9,
            "episodes": sum(map(len, batches)),
            "micro_batches": len(batches),
            "first_step_s": first,
            "step_s": seconds,
            "steps_s": times,
            "tokens_per_second": tokens / seconds,
            "tflops_per_second": flops.needed / seconds / 1e12,
            "mfu": flops.needed / seconds / rate,
            "mfu_as_trained": flops.as_trained / seconds / rate,
            "share_of_matmul": flops.needed / seconds / self.measured,
            "peak_gib": peak / GIB,
            "planned_over_peak": planned / peak,
        }
        if case.profiled:
            found["profile"] = profiled(lambda: stepper.step(batches), self.device)
        return found

    def _base_of(self, case: Case, config: PreTrainedConfig) -> PreTrainedModel:
        """Return the model under a case; a frozen one is kept for the next case."""
        if not case.adapters:
            self._base = None
            self._release(keep=False)
            with self.device:
                return made_base(config, case.settings, case.trains)
        if self._base is None or self._base[0] != case.base:
            self._release(keep=False)
            with self.device:
                self._base = case.base, made_base(config, case.settings, case.trains)
        return self._base[1]

    def _release(self, *, keep: bool) -> None:
        if not keep:
            self._base = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _seconds(self, stepper: Stepper, batches: MicroBatches) -> float:
        synchronize(self.device)
        begin = time.perf_counter()
        stepper.step(batches)
        synchronize(self.device)
        return time.perf_counter() - begin

    def _peak(self, stepper: Stepper, base: PreTrainedModel, batches: MicroBatches) -> float:
        """Return the most bytes that exist in a step, the weights and the optimizer included."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            stepper.step(batches)
            synchronize(self.device)
            return float(torch.cuda.max_memory_allocated(self.device))
        modules = [base, *stepper.parts.values()]
        tensors = {
            t.untyped_storage()._cdata: t for module in modules for t in (*module.parameters(), *module.buffers())
        }
        with PeakBytes(list(tensors.values())) as counter:
            stepper.step(batches)
        weights = sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
        return weights + stepper.optimizer_bytes + counter.peak


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OverBudgetError in the block after `seconds`."""

    def end(*_: object) -> None:
        raise OverBudgetError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def save(arguments: Namespace, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write the report if a file was asked for."""
    if arguments.out is not None:
        report("gpu", arguments, rows, **more)


def run_checks(device: torch.device, *, quick: bool, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each check that ended within `seconds`."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OverBudgetError), limit(seconds):
        for check in all_checks(device, quick=quick):
            rows.append(check.row())
            say(f"{'ok  ' if rows[-1]['passed'] else 'FAIL'} {check.check}, {check.model}: {check.gap:.2g}")
    return rows


def run_cases(bench: Bench, cases: list[Case], arguments: Namespace, about: dict[str, Any], begin: float) -> list[dict]:
    """Return a row for each case that began within the budget; `about` gets the others, as does the report."""
    rows: list[dict[str, Any]] = []
    for index, case in enumerate(cases):
        spent = time.perf_counter() - begin
        about |= {"spent_s": spent, "left_out": [left.row() for left in cases[index:]]}
        save(arguments, rows, **about)
        if spent > arguments.budget:
            return rows
        try:
            with limit(arguments.budget + GRACE_S - spent):
                rows.append(bench.row(case))
        except OverBudgetError:
            rows.append({**case.row(), "outcome": "over the budget"})
        say(line(rows[-1]))
    about |= {"spent_s": time.perf_counter() - begin, "left_out": []}
    save(arguments, rows, **about)
    return rows


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--save", action="store_true", help="write bench/results/gpu-DEVICE.json")
    options.add_argument("--budget", type=float, default=BUDGET_S, help="seconds after which no case begins")
    arguments = options.parse_args()
    begin = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    if arguments.save and arguments.out is None:
        arguments.out = RESULTS / f"gpu-{re.sub('[^a-z0-9]+', '-', name.lower())}{'-quick' * arguments.quick}.json"
    cases = quick_cases() if arguments.quick else all_cases()
    bench = Bench(device, quick=arguments.quick)
    checks = run_checks(device, quick=arguments.quick, seconds=arguments.budget + GRACE_S)
    about: dict[str, Any] = {
        "device": name,
        "device_memory_gib": None if bench.memory is None else bench.memory / GIB,
        "published_tflops": None if bench.published is None else bench.published / 1e12,
        "measured_tflops": bench.measured / 1e12,
        "aims": AIMS,
        "budget_s": arguments.budget,
        "checks": checks,
    }
    rows = run_cases(bench, cases, arguments, about, begin)
    failed = [check for check in checks if not check["passed"]]
    say(f"{len(rows)} cases of {len(cases)} on {name} in {about['spent_s']:.0f} s, {len(failed)} checks failed")
    say(f"written to {arguments.out}" if arguments.out is not None else "not written: give --save or --out")
    return 1 if failed or not checks else 0


def line(row: dict[str, Any]) -> str:
    """Return a row as a line of text."""
    words = f"{row['size']} {row['trains']} {row['weights']}, {row['tokens']} tokens, {row['turns']} turns"
    words += "" if row["checkpointing"] else ", no checkpointing"
    words += ", compiled" if row["compiled"] else ""
    if row["outcome"] != "measured":
        return f"{words}: {row['outcome']}"
    return (
        f"{words}: {row['step_s']:.3g} s, {row['tokens_per_second']:,.0f} tokens/s, MFU {row['mfu']:.1%} "
        f"({row['mfu_as_trained']:.1%} as trained), {row['peak_gib']:.3g} GiB (planned {row['planned_gib']:.3g})"
    )


if __name__ == "__main__":
    sys.exit(main())
