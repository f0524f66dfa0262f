"""Signals: the first one raises in the main thread, the second one ends the process at once."""

import signal
import subprocess
import sys
from typing import Any

import pytest

BUSY = """
import signal, sys, time
from archer import signals
signals.install()
signals.ends_with("the sentence")
try:
    print("up", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("first", flush=True)
    while True:  # an end that hangs
        time.sleep(60)
"""


def start(program: str, **options: Any) -> subprocess.Popen[str]:
    def reset() -> None:  # a background job of a shell ignores SIGINT, and so do the processes that it starts
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, options.get("disposition", signal.SIG_DFL))

    command = [sys.executable, "-c", program, *options.get("arguments", ())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=reset)


ASKED = """
import signal, sys, threading
from archer import signals
signals.install()
signals.PATIENCE_S, asked = float(sys.argv[1]), threading.Event()
try:
    with signals.ends_by(lambda: asked.set() is None and sys.argv[2] != "idle"):
        print("up", flush=True)
        asked.wait(60)
        if sys.argv[2] == "idle":
            threading.Event().wait(60)
        print("asked", flush=True)
        if sys.argv[2] == "late":
            threading.Event().wait(60)
    print("not reached", flush=True)
except KeyboardInterrupt as error:
    print(type(error).__name__, signals.exit_status(), flush=True)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with start(BUSY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(first)
        assert process.stdout.readline() == "first\n"
        process.send_signal(second)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + first
    assert errors == "archer: ended at once by a second signal; the sentence\n"


def test_an_end_that_hangs_is_cut_short_within_the_grace_period() -> None:
    with start(BUSY.replace("signals.install()", "signals.GRACE_S = 0.5; signals.install()")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "archer: the command did not end within 0.5 s of the signal; the sentence\n"


def test_signals_that_the_caller_ignores_stay_ignored() -> None:
    program = (
        "import signal; from archer import signals; signals.install(); signals.rearm();"
        "print([signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])"
    )
    with start(program, disposition=signal.SIG_IGN) as process:
        out, _ = process.communicate(timeout=60)
    assert out == "[True, True, True]\n"


def test_a_forked_child_dies_of_the_signal() -> None:
    program = (
        "import os, signal; from archer import signals; signals.install(); child = os.fork()\n"
        "if child == 0: signal.raise_signal(signal.SIGTERM); os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    with start(program) as process:
        out, _ = process.communicate(timeout=60)
    assert out == "-15\n"


@pytest.mark.parametrize(
    ("arguments", "number", "said"),
    [
        (("60", "early"), signal.SIGTERM, ["asked", "Terminated 143"]),  # the block ends in order
        (("0.2", "late"), signal.SIGHUP, ["asked", "Terminated 129"]),  # the time for it is over
        (("60", "idle"), signal.SIGTERM, ["Terminated 143"]),  # nothing to wait for
        (("60", "late"), signal.SIGINT, ["KeyboardInterrupt 130"]),
    ],
)
def test_a_block_is_asked_to_end_before_it_is_interrupted(
    arguments: tuple[str, str], number: signal.Signals, said: list[str]
) -> None:
    with start(ASKED, arguments=arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert out.splitlines() == said


def test_a_second_signal_ends_a_block_that_was_asked() -> None:
    with start(ASKED, arguments=("60", "late")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "archer: ended at once by a second signal\n"
