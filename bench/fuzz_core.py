"""The parts of a fuzzing target, and the loop of one process that runs it.

A target is a strategy of Hypothesis and a check of one example, or, for atheris, a check of bytes. A check raises for a
fault only: the documented errors are caught in it. The process reports its progress in a file that it shares with the
parent, which ends it if one input takes too long in native code, or if it does not survive one.
"""

from __future__ import annotations

import json
import mmap
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from bench.common import resident

CPU_LIMIT_S = 10.0
"""Processor time of one example, after which it counts as a hang."""
_SHOWN = 4_000
_HEAD = struct.Struct("<qi")
_SIZE = 1 << 16
_MOST_FINDINGS = 20


class Probe(NamedTuple):
    """What Hypothesis runs: examples of a strategy, and the check of one."""

    examples: SearchStrategy[Any]
    check: Callable[[Any], None]
    inputs: int = 1  # Inputs of one example: actions, rows, requests


@dataclass(frozen=True)
class Target:
    """Something that reads what others write.

    share: its part of all inputs, relative to the other targets'.
    open: makes the probe, in the process that runs it; the argument is an empty folder. None for atheris.
    reads: the check of bytes that atheris runs, with the packages whose branches it follows.
    """

    name: str
    share: float
    open: Callable[[Path], AbstractContextManager[Probe]] | None = None
    reads: tuple[Callable[[], Callable[[bytes], None]], tuple[str, ...]] | None = None

    @property
    def driver(self) -> str:
        return "hypothesis" if self.open is not None else "atheris"


class Hang(BaseException):
    """An example took more than CPU_LIMIT_S. Not an Exception, which a check could catch."""


@dataclass
class Progress:
    """Inputs done and the present example, in a file that the parent reads."""

    path: Path
    done: int = 0
    findings: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.path.exists():
            self.path.write_bytes(bytes(_SIZE))
        with self.path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def begin(self, value: Any) -> None:
        shown = ascii(value)[:_SHOWN].encode()
        self._memory[: _HEAD.size + len(shown)] = _HEAD.pack(self.done, len(shown)) + shown

    def finish(self, inputs: int) -> None:
        self.done += inputs
        self._memory[: _HEAD.size] = _HEAD.pack(self.done, 0)

    def note(self, error: BaseException) -> None:
        """Keep a fault, once for each place in the code."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        found = {"fault": type(error).__name__, "place": place, "says": str(error)[:500], "input": self.read()[1]}
        known = {(one["fault"], one["place"]) for one in self.findings}
        if (found["fault"], place) not in known and len(self.findings) < _MOST_FINDINGS:
            found["trace"] = "".join(traceback.format_tb(error.__traceback__)[-4:])
            self.findings.append(found)

    def read(self) -> tuple[int, str]:
        """Return the inputs done, and the example under way."""
        done, length = _HEAD.unpack(self._memory[: _HEAD.size])
        return done, self._memory[_HEAD.size : _HEAD.size + length].decode()


@contextmanager
def bounded() -> Iterator[None]:
    """Raise Hang in the block when it has used CPU_LIMIT_S of processor time."""

    def expire(*_: object) -> None:
        raise Hang(f"more than {CPU_LIMIT_S:g} s of processor time")

    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def run_hypothesis(target: Target, inputs: int, number: int, folder: Path, progress: Progress) -> None:
    """Run a target until `inputs` are done, with the random numbers of `number`."""
    assert target.open is not None
    with target.open(folder) as probe:
        check, each = probe.check, probe.inputs

        @settings(
            max_examples=max(1, -(-inputs // each)),
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(probe.examples)
        def run(value: Any) -> None:
            progress.begin(value)
            try:
                with bounded():
                    check(value)
            except (Exception, Hang) as error:  # noqa: BLE001 - this is what a fault is
                progress.note(error)
                write_findings(progress)  # The next example may end the process.
            progress.finish(each)

        while progress.done < inputs:  # Hypothesis stops early where it has seen every example
            before = progress.done
            seed(number + before)(run)()
            if progress.done == before:
                break


def run_atheris(target: Target, inputs: int, number: int, folder: Path, progress: Progress) -> None:
    """Run a target on bytes that follow its branches. libFuzzer ends the process after the last input."""
    import atheris

    assert target.reads is not None
    make, packages = target.reads
    early = [name for name in sys.modules if name.startswith(packages)]
    must(not early, f"imported before atheris can follow their branches: {', '.join(early)}")
    with atheris.instrument_imports(include=list(packages)):
        check = make()

    def one(data: bytes) -> None:
        progress.begin(data)
        try:
            with bounded():
                check(data)
        except (Exception, Hang) as error:  # noqa: BLE001
            progress.note(error)
            write_findings(progress)
        progress.finish(1)
        if progress.done % 1_000 == 0 or progress.done >= inputs:  # libFuzzer ends the process without atexit
            write_findings(progress)

    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, sample in enumerate(getattr(check, "samples", ())):
        (corpus / f"sample-{index}").write_bytes(sample)
    options = [f"-runs={inputs}", f"-seed={number + 1}", "-max_len=2000", "-verbosity=0", "-print_final_stats=0"]
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={folder}/", str(corpus)], one)
    atheris.Fuzz()


def write_findings(progress: Progress) -> None:
    """Write what was found, and the resources that the process used, for the parent."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    content = {
        "findings": progress.findings,
        "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": resident("VmHWM") >> 20,  # `ru_maxrss` begins with the peak of the parent
    }
    path = progress.path.with_name("findings.json")
    path.with_suffix(".part").write_text(json.dumps(content))
    path.with_suffix(".part").replace(path)


def must(holds: bool, text: str) -> None:
    """Raise AssertionError with `text` unless a property holds."""
    if not holds:
        raise AssertionError(text)
