"""`archer eval` on the real stack: a model folder in, figures out."""

import subprocess
import sys
from pathlib import Path

import pytest

from archer.config import TinyModelConfig
from archer.evaluate import FIRST_HELD_OUT_SEED
from archer.model import build_tiny_model
from learner.train import EVALUATION_SEED


def test_evaluation_seeds_are_those_of_training_runs() -> None:
    assert FIRST_HELD_OUT_SEED == EVALUATION_SEED


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_model_is_played_and_its_figures_printed(tmp_path: Path) -> None:
    texts = ["Questions:\nIs it a football?\nNo.\nIs it a dog?\nYes.\n"] * 20
    config = TinyModelConfig(hidden_size=32, layers=2, heads=1, intermediate_size=64)
    model = build_tiny_model(texts, tmp_path / "newborn", config, seed=0)
    settings = ["rollout.sampling.max_tokens=8", "env.kwargs={max_turns: 4}"]
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            "from archer.cli import main; main()",
            *("eval", str(model), "--env", "twenty_questions_subset", "--episodes", "12", "--greedy"),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True,
        text=True,
        timeout=570,
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    header, line = (line.split() for line in answer.stdout.splitlines()[-2:])
    assert header[0] == "policy"
    assert line[:2] == ["newborn", "(greedy)"]
    assert line[2:4] == ["twenty_questions_subset", "12"]
    assert float(line[4]) == -4.0  # a model that has learnt nothing asks four invalid questions
