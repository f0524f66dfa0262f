"""Run folder: one run at a time, no lost rows, no partial files."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from archer.driver.outcome import rewind
from archer.driver.progress import Progress
from archer.driver.run_folder import RunFolder, disk_errors, latest_checkpoint, read_rows
from archer.errors import ConfigError, RunError
from bench.fuzz_replay import sound_episode
from buffer import atomic_files
from buffer.episodes.schema import episodes_to_batch
from buffer.log.write_ahead import WriteAheadLog


def start(tmp_path: Path, name: str = "a", **kwargs: bool) -> RunFolder:
    folder = RunFolder.create(tmp_path, name, **kwargs)
    folder.write(folder.config_path, "seed: 1\n")
    return folder


def test_rows_and_summary_come_back(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        folder.append_row({"kind": "cycle", "cycle": 1, "metrics": {"return": np.float32(-3.5), "nan": math.nan}})
        folder.append_row({"kind": "cycle", "cycle": 2, "metrics": {}})
        assert folder.rows()[0]["metrics"] == {"return": -3.5, "nan": None}
        folder.write_summary({"episodes": np.int64(4)})
        assert json.loads(folder.summary_path.read_text()) == {"episodes": 4}


def test_run_with_results_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        folder.append_row({"kind": "cycle", "cycle": 1, "metrics": {}})
    with pytest.raises(ConfigError, match=r"already holds a run.*--resume.*--overwrite"):
        RunFolder.create(tmp_path, "a")
    assert len(read_rows(tmp_path / "a" / "metrics.jsonl")) == 1
    with start(tmp_path, overwrite=True) as folder:
        assert folder.rows() == []


def test_run_that_failed_while_starting_may_be_replaced(tmp_path: Path) -> None:
    with start(tmp_path):
        pass
    with start(tmp_path) as folder:
        assert folder.config_path.exists()


def test_folder_that_is_no_run_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.create(tmp_path, "a", overwrite=True)
    assert (tmp_path / "a" / "thesis.txt").exists()


def test_only_the_owner_enters_a_run_folder(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with start(tmp_path / "runs") as folder:
            assert folder.path.stat().st_mode & 0o777 == 0o700
        folder.path.chmod(0o755)
        with start(tmp_path / "runs"):  # takes the place of the earlier run
            assert folder.path.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(mask)
    folder.path.chmod(0o777)
    with pytest.raises(ConfigError, match=r"every user of this machine can write to .*; check its content, then chmod"):
        RunFolder.open(folder.path)


def test_open_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.open(tmp_path / "nothing")


def test_second_run_in_one_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} "):
            RunFolder.open(folder.path)
        with pytest.raises(RunError, match="in use"):
            RunFolder.create(tmp_path, "a", overwrite=True)
    with RunFolder.open(folder.path):
        pass


def test_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    with start(tmp_path):
        pass
    code = (
        "import sys, time; from pathlib import Path; from archer.driver.run_folder import RunFolder\n"
        f"f = RunFolder.open(Path({str(tmp_path / 'a')!r})); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    with pytest.raises(RunError, match=f"process {child.pid} "):
        RunFolder.open(tmp_path / "a")
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    with RunFolder.open(tmp_path / "a"):
        pass


def test_incomplete_last_line_is_left_out_and_rewound(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        folder.append_row({"kind": "cycle", "cycle": 1, "metrics": {}})
        with open(folder.metrics_path, "a") as file:
            file.write('{"kind": "cycle", "cyc')
        assert [row["cycle"] for row in folder.rows()] == [1]
        folder.rewind(1)
        folder.append_row({"kind": "cycle", "cycle": 2, "metrics": {}})
        assert [row["cycle"] for row in folder.rows()] == [1, 2]


def test_incomplete_line_is_detected_at_every_cut(tmp_path: Path) -> None:
    whole = b'{"kind": "cycle", "cycle": 2, "metrics": {"critic/q_loss": 0.5, "a": {"b": 1}}}'
    file = tmp_path / "metrics.jsonl"
    for cut in range(1, len(whole)):
        file.write_bytes(b'{"kind": "cycle", "cycle": 1}\n' + whole[:cut])
        assert [row["cycle"] for row in read_rows(file)] == [1], whole[:cut]


def test_line_that_is_no_json_is_an_error_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"cycle": 1}\nhello\n{"cycle": 2}\n')
    with pytest.raises(RunError, match="line 2"):
        read_rows(file)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left on the disk of .*free some"),
        (errno.EROFS, r"cannot be written \(Read-only file system\).*runs_dir"),
        (errno.EACCES, r"cannot be written \(Permission denied\).*runs_dir"),
        (errno.ENOTDIR, "Not a directory"),
    ],
)
def test_disk_errors_say_what_to_do(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(RunError, match=said), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_rewind_drops_the_cycles_that_a_resumed_run_repeats(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        for cycle in (0, 1, 2, 3):
            folder.append_row({"kind": "cycle" if cycle else "evaluation", "cycle": cycle})
        folder.rewind(2)
        assert [row["cycle"] for row in folder.rows()] == [0, 1, 2]


@pytest.mark.parametrize(("checkpointed", "dropped"), [(True, 1), (False, 3)])
def test_a_resumed_run_says_how_many_acknowledged_episodes_its_replay_loses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpointed: bool, dropped: int
) -> None:
    with start(tmp_path) as folder, Progress("a", 2) as progress:
        checkpoint = folder.checkpoints / "cycle-00001"
        live, held = folder.replay / "shard-0", checkpoint / "replay" / "shard-0"
        for path in (live, held):
            path.mkdir(parents=True)
        log = WriteAheadLog(live, durability="flush", segment_bytes=1 << 30)
        log.append(episodes_to_batch([sound_episode(0), sound_episode(1)]), 0, 0)
        log.link_to(held)
        rewind(folder, checkpoint, {"cycle": 1}, progress, [])
        assert "replay drops" not in capsys.readouterr().out
        log.append(episodes_to_batch([sound_episode(2)]), 2, 4)
        rewind(folder, checkpoint if checkpointed else None, {"cycle": 1}, progress, [])
    assert f"replay drops {dropped} episodes that it stored after that" in capsys.readouterr().out


def test_latest_checkpoint_is_the_newest_complete_one(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        assert latest_checkpoint(folder.path) is None
        for name in ("cycle-00009", "cycle-00010", "cycle-00011.partial"):
            (folder.checkpoints / name).mkdir()
        newest = latest_checkpoint(folder.path)
        assert newest is not None
        assert newest.name == "cycle-00010"


def test_write_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with start(tmp_path) as folder:
        folder.write_summary({"cycles": 1})
        before = sorted(folder.path.iterdir())
        monkeypatch.setattr(atomic_files.os, "fsync", fail)
        with pytest.raises(RunError, match=r"no space left.*summary\.json"):
            folder.write_summary({"cycles": 2})
        assert json.loads(folder.summary_path.read_text()) == {"cycles": 1}
        assert sorted(folder.path.iterdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_full_disk_is_reported(tmp_path: Path) -> None:
    with start(tmp_path) as folder:
        folder.metrics_path.symlink_to("/dev/full")
        with pytest.raises(RunError, match=r"no space left.*metrics\.jsonl"):
            folder.append_row({"cycle": 1})


def test_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Not a directory"):
        RunFolder.create(tmp_path / "file", "a")
