"""What a checkpoint fixes: which settings a resumed run may change, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archer.config.models import RunConfig
from archer.driver.fixed_settings import fixed_settings, require_fixed
from archer.errors import ConfigError
from buffer.log.folders import begin
from learner.engine.checkpoint_folders import write_fixed


def config_of(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "gpt2"}, "env": {"id": "key_door"}, **sections})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a run with two ranks and two shards."""
    folder = tmp_path / "checkpoints" / "cycle-00003"
    begin(folder / "replay", 2)
    before = config_of(learner={"ranks": 2}, replay={"shards": 2}, env={"id": "key_door", "kwargs": {"size": 3}})
    write_fixed(folder, fixed_settings(before))
    return folder


def again(checkpoint: Path, *, ranks: int = 2, shards: int = 2, size: int = 3, **sections: Any) -> list[str]:
    env = {"id": "key_door", "kwargs": {"size": size}}
    config = config_of(learner={"ranks": ranks}, replay={"shards": shards}, env=env, **sections)
    return require_fixed(config, checkpoint.parents[1], checkpoint)


def test_more_shards_and_any_number_of_workers_are_taken(checkpoint: Path) -> None:
    assert again(checkpoint, shards=5, rollout={"workers": 7}) == []


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_number_of_ranks_is_fixed(checkpoint: Path, ranks: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"`learner.ranks` is {ranks}, and .*cycle-00003 fixes it at 2: each rank has"
    ):
        again(checkpoint, ranks=ranks)


def test_fewer_shards_are_refused_with_their_number(checkpoint: Path) -> None:
    message = (
        r"`replay.shards` is 1, and .*cycle-00003 has 2: .*leave the rows of the others behind; set replay.shards=2"
    )
    with pytest.raises(ConfigError, match=message):
        again(checkpoint, shards=1)


def test_other_arguments_of_the_environment_are_said(checkpoint: Path) -> None:
    (sentence,) = again(checkpoint, size=4)
    assert sentence.startswith(
        "`env.kwargs` was {size: 3} and is {size: 4} from now on: replay has episodes of the earlier"
    )
