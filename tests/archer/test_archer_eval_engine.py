"""`archer eval` on the real stack: model folders in, a comparison out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archer.config.sections import TinyModelConfig
from archer.driver.model import build_tiny_model
from learner.seeds import EVALUATION_SEED


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_are_played_on_the_same_seeds_and_compared(cluster_address: str, tmp_path: Path) -> None:
    texts = ["Questions:\nIs it a football?\nNo.\nIs it a dog?\nYes.\n"] * 20
    config = TinyModelConfig(hidden_size=32, layers=2, heads=1, intermediate_size=64)
    models = [str(build_tiny_model(texts, tmp_path / name, config, seed=0)) for name in ("newborn", "twin")]
    settings = ["rollout.engine.kv_cache_gib=0.1", "rollout.sampling.max_tokens=8", "env.kwargs={max_turns: 4}"]
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            "from archer.cli import main; main()",
            *("eval", *models, "--env", "twenty_questions_subset", "--episodes", "12", "--sampled", "--greedy"),
            *("--out", "results", *(word for setting in settings for word in ("--set", setting))),
        ],
        capture_output=True,
        text=True,
        timeout=570,
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": cluster_address},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    header, *lines = (line.split() for line in answer.stdout.splitlines()[:5])
    assert header[0] == "policy"
    assert [line[::2][:2] for line in lines] == [
        [name, decoding] for name in ("newborn", "twin") for decoding in ("sampled", "greedy")
    ]
    for line in lines:
        assert line[1:5:2] == ["twenty_questions_subset", "12"]
        assert float(line[4]) == -4.0  # a model that has learnt nothing asks four invalid questions

    tree = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert tree["complete"]
    seeds = list(range(EVALUATION_SEED, EVALUATION_SEED + 12))
    assert all([row["seed"] for row in result["rows"]] == seeds for result in tree["results"])
    tokens = [[row["tokens"] for row in result["rows"]] for result in tree["results"]]
    assert all(4 <= count <= 32 for counts in tokens for count in counts)
    assert [(d["name"], d["mean"]) for d in tree["differences"]] == [("twin", 0.0)] * 2
    assert (tmp_path / "results" / "returns.png").stat().st_size > 10_000
