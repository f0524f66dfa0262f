"""Engines and learner are compared before the first cycle of a run that does not clone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actor_cases import save_model
from trainer_cases import make_args, make_session

from learner.broadcast.proof import BroadcastProofError
from learner.stages import start

pytestmark = pytest.mark.usefixtures("one_rank")

LEARNER: dict[str, Any] = {"clone": {"steps": 0}}


def _start(tmp_path: Path, gap: float) -> Any:
    args, _ = make_args(tmp_path / "run", save_model(tmp_path / "model"), "reinforce", LEARNER)
    session = make_session(args)
    rollouts: Any = args.rollouts
    probe = rollouts.probe

    def off(tokens: np.ndarray, positions: np.ndarray) -> Any:
        return [replace(answer, logprobs=answer.logprobs + np.float32(gap)) for answer in probe(tokens, positions)]

    rollouts.probe = off
    start(session)
    return session


def test_engines_that_compute_the_same_are_proved_at_the_first_version(tmp_path: Path) -> None:
    session = _start(tmp_path, 1e-5)
    assert session.state.version == 0
    assert session.state.proof_max_gap == pytest.approx(1e-5, rel=0.2)


def test_an_engine_with_another_function_ends_the_run_before_its_first_cycle(tmp_path: Path) -> None:
    with pytest.raises(BroadcastProofError, match=r"version 0.*another function of the same weights than the learner"):
        _start(tmp_path, 0.5)


def test_a_small_gap_at_the_first_version_is_precision(tmp_path: Path) -> None:
    with pytest.raises(BroadcastProofError, match=r"version 0.*precision"):
        _start(tmp_path, 0.01)
