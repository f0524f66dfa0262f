"""The history of a run: whole files within their limit, and values that are those of the step that used them."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from learner_cases import make_row
from table_cases import pair, table_algorithm
from test_learner_tabular import GAMMA, _data
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from learner.history.config import HistoryConfig
from learner.history.episodes import token_texts
from learner.history.folder import EPISODES, VALUES, HistoryFolder, cycle_of, drop_after, history_files
from learner.history.recorder import Recorder
from learner.history.values import VALUE_TABLE, TurnValues

ROWS = pa.table({"x": np.random.default_rng(0).normal(size=1000)})


def _cycles(run: Path) -> list[int]:
    return [cycle_of(path) for path in history_files(run, VALUES)]


def test_files_appear_whole_and_a_repeated_cycle_replaces_its_file(tmp_path: Path) -> None:
    folder = HistoryFolder(tmp_path, 1 << 30)
    path = folder.write(VALUES, 3, "rank-0", ROWS)
    path.with_name(f".{path.name}.1.part").write_bytes(b"half")
    path.with_name("notes.txt").write_text("not ours")
    folder.write(VALUES, 3, "rank-0", ROWS.slice(0, 5))
    assert history_files(tmp_path, VALUES) == [path]
    assert pq.read_table(path).num_rows == 5
    assert folder.write(EPISODES, 0, "eval-../../x y", ROWS).name == "00000000-eval-..-..-x-y.parquet"
    assert history_files(tmp_path / "nowhere", VALUES) == []


def test_a_full_folder_drops_cycles_evenly_and_never_the_first_or_the_last(tmp_path: Path) -> None:
    size = HistoryFolder(tmp_path / "other", 1 << 30).write(VALUES, 0, "rank-0", ROWS).stat().st_size
    folder = HistoryFolder(tmp_path, 9 * size)
    for cycle in range(65):
        folder.write(VALUES, cycle, "rank-0", ROWS)
    kept = _cycles(tmp_path)
    assert len(kept) == 9
    assert kept[0] == 0
    assert kept[-2:] == [63, 64]
    assert max(np.diff(kept)) <= 32
    drop_after(tmp_path, kept[3])
    assert _cycles(tmp_path) == kept[:4]


def test_only_the_newest_turns_are_held_and_the_last_use_of_a_turn_counts() -> None:
    used = TurnValues()
    rows = [make_row(i, turns=3, all_turns=True) for i in range(4)]
    used.add(rows, q=torch.ones(12))
    assert used.take(1, 0) is None  # without a limit nothing is kept
    used.limit = 6
    for step, row in enumerate(rows + rows[:1]):
        used.add([row], q=torch.full((3,), float(step)), v=torch.zeros(3))
    table = used.take(2, 7)
    assert table.schema == VALUE_TABLE
    assert table.column("episode_id").to_pylist() == ["episode-3"] * 3 + ["episode-0"] * 3
    assert table.column("q").to_pylist() == [3.0] * 3 + [4.0] * 3
    assert set(table.column("target").to_pylist()) == {None}
    assert (table["cycle"][0].as_py(), table["version"][0].as_py()) == (2, 7)
    assert used.take(3, 7) is None


@pytest.mark.usefixtures("one_rank")
def test_the_values_of_a_critic_step_are_those_of_the_critic_before_it() -> None:
    algorithm = table_algorithm("archer", critic={"gamma": GAMMA, "warmup_cycles": 0, "n_step": 1})
    engines, rng = algorithm.engines, torch.Generator().manual_seed(0)
    for module in (engines.critic.module, engines.target.module):
        for head in (*module.q, *module.v):
            head.value.data = torch.randn(len(head.value), generator=rng)
    critic, target = (
        {kind: torch.stack([head.value.detach().clone() for head in getattr(module, kind)]) for kind in "qv"}
        for module in (engines.critic.module, engines.target.module)
    )
    rows = _data()
    algorithm.used.limit = 100
    algorithm.step(algorithm.phases(0)[0], [rows[::2], rows[1::2]], sum(len(row.turns) for row in rows), 1)
    found = {(row["episode_id"], row["turn"]): row for row in algorithm.used.take(1, 1).to_pylist()}
    assert len(found) == sum(len(row.turns) for row in rows)
    for row in rows:
        episode = row.episode
        for turn, (start, end) in enumerate(zip(episode.action_start, episode.action_end, strict=True)):
            state, action, after = (int(episode.tokens[i]) for i in (start - 1, start, end))
            ended = episode.terminated and turn == episode.turns - 1
            q, v = critic["q"][:, pair(state, action)], critic["v"][:, state]
            expected = {
                "q": q.mean(),
                "v": v.mean(),
                "advantage": q.min() - v.min(),
                "target": episode.reward[turn] + GAMMA * (not ended) * target["v"][:, after].mean(),
            }
            kept = found[episode.episode_id, turn]
            assert {name: kept[name] for name in expected} == pytest.approx({k: float(x) for k, x in expected.items()})


def test_a_character_of_several_tokens_belongs_to_the_last_and_no_token_ends_a_run() -> None:
    backend = Tokenizer(
        models.BPE(vocab={char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer: Any = SimpleNamespace(backend_tokenizer=backend)
    ids = backend.encode("a é!").ids
    assert token_texts(ids, tokenizer) == ["a", " ", "", "é", "!"]
    rng = np.random.default_rng(0)
    for _ in range(50):  # bytes that are no text, and tokens that the tokenizer lacks
        noise = rng.integers(0, 300, 30).tolist()
        assert len(token_texts(noise, tokenizer)) == 30
    alone: Any = SimpleNamespace(decode=lambda tokens: f"<{tokens[0]}>")
    assert token_texts([1, 2], alone) == ["<1>", "<2>"]


def test_a_disk_that_refuses_ends_the_recording_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "history").write_text("a file in the way")
    used = TurnValues()
    used.limit = 10
    recorder = Recorder(HistoryConfig(), tmp_path, None, 0)
    with caplog.at_level(logging.WARNING):
        for cycle in (1, 2):
            used.add([make_row(0)], q=torch.zeros(len(make_row(0).turns)))
            recorder.values(used, cycle, 0)
    assert [record.message.split(" (")[0] for record in caplog.records] == ["history/ cannot be written"]
    assert recorder.every(128) == 4
    assert recorder.every(3) == 1
    assert Recorder(HistoryConfig(episodes_per_cycle=0), tmp_path, None, 0).every(3) == 0
