"""The fuzzing program, with a few inputs for each target: it finds nothing, and would say so if it did."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from bench import fuzz, fuzz_bytes, fuzz_core
from bench.fuzz_core import Probe, Progress, Target, run_hypothesis

EXAMPLES = {target.name: target for target in fuzz.targets() if target.driver == "hypothesis"}
READERS = {target.name: target for target in fuzz_bytes.readers()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_few_examples_find_no_fault(tmp_path: Path, name: str) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    progress = Progress(tmp_path / "progress")
    run_hypothesis(EXAMPLES[name], 5, 1, scratch, progress)
    assert progress.findings == []
    assert progress.done >= 5


@pytest.mark.parametrize("name", READERS)
def test_the_samples_of_a_reader_find_no_fault(name: str) -> None:
    reads = READERS[name].reads
    assert reads is not None
    check: Any = reads[0]()
    for sample in [b"", b"\xff\xfe", *check.samples]:
        check(sample)


def test_atheris_finds_no_fault_in_a_few_bytes() -> None:
    pytest.importorskip("atheris", reason="atheris is not installed (bench/requirements-fuzz.txt)")
    row = fuzz.supervise(READERS["bytes-headers"], 5, 1)
    assert row["findings"] == []
    assert row["inputs"] >= 5


def _target(check: Callable[[int], None]) -> Target:
    @contextmanager
    def opened(folder: Path) -> Iterator[Probe]:
        yield Probe(st.integers(0, 99), check)

    made: Callable[[Path], AbstractContextManager[Probe]] = opened
    return Target("wrong", 1.0, made)


def test_a_fault_is_kept_once_with_its_input(tmp_path: Path) -> None:
    def check(value: int) -> None:
        raise ValueError(f"no {value}")

    progress = Progress(tmp_path / "progress")
    run_hypothesis(_target(check), 5, 1, tmp_path, progress)
    (found,) = progress.findings
    assert found["fault"] == "ValueError"
    assert found["says"] == f"no {found['input']}"
    assert (tmp_path / "findings.json").exists()
    assert progress.done >= 5


def test_an_example_without_end_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_core, "CPU_LIMIT_S", 0.02)

    def check(value: int) -> None:
        while True:
            pass

    progress = Progress(tmp_path / "progress")
    run_hypothesis(_target(check), 1, 1, tmp_path, progress)
    assert [found["fault"] for found in progress.findings] == ["Hang"]


def test_a_process_that_crashes_or_computes_without_end_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress(tmp_path / "progress")
    run = [sys.executable, "-S", "-c"]
    assert fuzz.watch([*run, "import os; os.abort()"], tmp_path / "log", progress) == "ended by SIGABRT"
    assert fuzz.watch([*run, "raise SystemExit(3)"], tmp_path / "log", progress) == "ended with status 3"
    monkeypatch.setattr(fuzz, "NATIVE_LIMIT_S", 0.05)
    said = fuzz.watch([*run, "while True: pass"], tmp_path / "log", progress)
    assert said == "no input finished within 0.05 s of processor time"
