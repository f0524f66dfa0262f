"""`archer export` and `archer replay serve`, as commands."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archer.commands.export import export
from archer.commands.import_episodes import import_episodes
from archer.commands.token_file import open_token
from archer.errors import ConfigError
from archer.imports.conversations import read_imports
from buffer.client.remote import RemoteClient
from buffer.folder_server import served_folder
from envs import Demonstration

ARCHER = Path(sys.executable).with_name("archer")


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("episodes") / "demos"
    command = [ARCHER, "record", "key_door", "--episodes", "12", "--out", folder]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


def conversations(folder: Path) -> list[Demonstration]:
    return read_imports([str(folder)], env="key_door")


def test_an_export_is_taken_as_demonstrations_and_imported_again(episodes, tmp_path, capsys):
    export(episodes, to=tmp_path / "exported")
    said = capsys.readouterr().out
    assert re.search(r"exported 12 episodes \(\d+ turns, \d.* [kM]B\)", said)
    import_episodes(tmp_path / "exported", out=tmp_path / "imported")
    assert "read 12 from" in capsys.readouterr().out
    assert conversations(episodes) == conversations(tmp_path / "exported") == conversations(tmp_path / "imported")


def test_wrong_sources_and_targets_are_named(episodes, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere does not exist"):
        export(tmp_path / "nowhere", to=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds no episodes\.parquet and no replay"):
        export(tmp_path, to=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"already contains .* give another folder with --to"):
        export(episodes, to=episodes)
    with pytest.raises(ConfigError, match=r"does not show its format; give --format"):
        import_episodes(tmp_path / "a.json", out=tmp_path / "out")
    table = pq.read_table(episodes / "episodes.parquet")
    other = table.set_column(table.schema.get_field_index("env"), "env", pa.array(["a", "b"] * 6))
    pq.write_table(other, tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match=r"holds episodes of \['a', 'b'\]; choose one with --env"):
        import_episodes(tmp_path / "two.parquet", out=tmp_path / "out")


def test_a_proxy_of_the_environment_is_not_asked(episodes, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with served_folder(episodes, host="127.0.0.1", port=0, token="secret") as (server, _):
        client = RemoteClient.at([f"127.0.0.1:{server.port}"], "secret")
        assert len(client.sweep()) == 12
        client.close()


def test_a_folder_is_served_until_ctrl_c(episodes, tmp_path):
    token = open_token(tmp_path / "token")
    # A process in the background ignores SIGINT, and its children inherit that.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from archer.cli import main; sys.argv = ['archer', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", program, "replay", "serve", str(episodes), "--token-file", str(tmp_path / "token")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout is not None
            line = served.stdout.readline()
            found = re.search(r"serving 12 episodes \(\d+ turns\) of .* at (127\.0\.0\.1:\d+)", line)
            assert found, line
            client = RemoteClient.at([found[1]], token)
            assert len(client.sweep()) == 12
            client.close()
            served.send_signal(signal.SIGINT)
            out, err = served.communicate(timeout=60)
        finally:
            served.kill()
    assert served.returncode == 0, err
    assert out.rstrip().endswith("stopped")
    assert token not in out + err
