"""Deferred work that is done once, and atomic writes."""

import stat
import threading

import pytest

from buffer.atomic_files import write_atomic
from buffer.debounce import Delayed


def test_many_who_ask_are_served_by_one_call():
    done, called = [], threading.Event()
    delayed = Delayed(lambda: (done.append(1), called.set()), 0.05)
    for _ in range(100):
        delayed.ask()
    assert called.wait(10)
    delayed.finish()
    assert done == [1]


def test_finishing_does_what_is_due_at_once_and_waits_for_what_is_under_way():
    asked = [0]
    seen = []
    begun, go_on = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert go_on.wait(10)
        seen.append(asked[0])

    delayed = Delayed(work, 3600.0)
    delayed.finish()
    assert seen == []  # no call was requested
    asked[0] = 1
    delayed.ask()
    first = threading.Thread(target=delayed.finish)
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=delayed.finish)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    for thread in (first, second):
        thread.join(10)
        assert not thread.is_alive()
    assert seen == [1]
    asked[0] = 2
    delayed.ask()
    delayed.finish()
    assert seen == [1, 2]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomic(path, "old", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("buffer.atomic_files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new", sync=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new", sync=True)
    assert path.read_text() == "new"
