"""Comparison of policies: paired differences, table, plot, and the files in the folder."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from actors.rollout.results import EpisodeResult, summarize
from archer.commands.evaluate import evaluate
from archer.config.models import RunConfig
from archer.config.sections import TinyModelConfig
from archer.driver.model import build_tiny_model
from archer.errors import ConfigError, RunError
from archer.results.comparison import Comparison, print_comparison
from archer.results.plots import returns_plot
from archer.results.policies import Policy
from archer.results.statistics import Decoding, EvalResult, Evaluation, bootstrap_interval, differences
from learner.seeds import EVALUATION_SEED

ENV = "twenty_questions_subset"


def evaluation(name: str, returns: list[float], decoding: Decoding = "sampled", first_seed: int = 7) -> Evaluation:
    """Return an evaluation with these returns; each episode has ten turns, one of them invalid, and 25 tokens. NaN
    marks a failed episode."""
    results = [
        EpisodeResult(seed=seed, failure="EnvFailedError: the dice are lost")
        if math.isnan(value)
        else EpisodeResult(
            seed=seed, ret=value, success=value > -5, turns=10, invalid_actions=1, action_tokens=25, version=0.0
        )
        for seed, value in enumerate(returns, start=first_seed)
    ]
    report = summarize(results, seconds=2.0, lost=0, next_seed=0)
    return Evaluation(
        EvalResult.from_event({**vars(report), "name": name}, env=ENV, greedy=decoding == "greedy"), report
    )


def comparison(*evaluations: Evaluation, episodes: int = 4) -> Comparison:
    config = RunConfig.model_validate({"model": {"path": "gpt2"}, "env": {"id": ENV}})
    names = list(dict.fromkeys(e.result.name for e in evaluations))
    decodings = list(dict.fromkeys(e.result.decoding for e in evaluations))
    policies = [Policy(f"runs/{name}", f"/models/{name}", (name,), name=name, config=config) for name in names]
    made = Comparison(policies, episodes=episodes, decodings=decodings, first_seed=7)
    made.evaluations += evaluations
    return made


def test_difference_is_taken_seed_by_seed() -> None:
    random = np.random.default_rng(0)
    task = random.normal(-10, 5, 200)
    first = evaluation("a", list(task))
    second = evaluation("b", list(task + random.normal(0.5, 0.5, 200)))
    (difference,) = differences([first, second])
    assert (difference.name, difference.first, difference.decoding, difference.episodes) == ("b", "a", "sampled", 200)
    assert difference.mean == pytest.approx(second.result.return_mean - first.result.return_mean)
    assert 0.3 < difference.low < difference.mean < difference.high < 0.7
    # Each policy's own interval is ten times as wide, and the two overlap: pairing is what separates them.
    assert second.result.return_low < first.result.return_high


def test_difference_leaves_out_what_one_of_them_did_not_finish() -> None:
    nan = math.nan
    (difference,) = differences([evaluation("a", [-4.0, nan, -6.0, -8.0]), evaluation("b", [-3.0, -1.0, nan, -8.0])])
    assert (difference.episodes, difference.mean) == (2, 0.5)
    assert differences([evaluation("a", [-4.0, nan]), evaluation("b", [nan, -1.0])]) == []
    assert differences([evaluation("a", [-4.0]), evaluation("b", [-4.0], first_seed=8)]) == []


def test_each_decoding_is_compared_with_its_own() -> None:
    found = differences(
        [
            evaluation("a", [-4.0, -6.0]),
            evaluation("a", [-2.0, -2.0], "greedy"),
            evaluation("b", [-3.0, -5.0]),
            evaluation("b", [-2.5, -2.5], "greedy"),
        ]
    )
    assert [(d.name, d.decoding, d.mean) for d in found] == [("b", "sampled", 1.0), ("b", "greedy", -0.5)]
    assert differences([evaluation("a", [-4.0]), evaluation("a", [-2.0], "greedy")]) == []
    assert differences([]) == []


def printed(made: Comparison, **settings: Any) -> list[str]:
    output = io.StringIO()
    print_comparison(made, Console(file=output, color_system=None, **settings))
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_table_has_a_line_for_each_policy_and_decoding() -> None:
    made = comparison(evaluation("a", [-4.0, -6.0, -20.0, -2.0]), evaluation("[b]", [-3.0, -6.0, -20.0, -2.0]))
    header, first, second, note = printed(made, width=60)
    low, high = bootstrap_interval([-4.0, -6.0, -20.0, -2.0])
    assert first.split() == [
        *("a", ENV, "sampled", "4", "-8.00", f"{low:.2f}", "to", f"{high:.2f}"),
        *("50%", "10.0", "25.0", "10.0%", "50"),
    ]
    assert second.split()[0] == "[b]"
    assert second.split()[-4:] == ["+0.25", "+0.00", "to", "+0.75"]
    assert header.split()[-3:] == ["tokens/s", "difference", "95%"]
    assert note == "difference: mean return minus that of a, paired by seed"
    assert len(printed(comparison(evaluation("a", [-4.0, -6.0])), width=60)) == 2  # nothing to compare with


def test_table_is_transposed_on_a_narrow_terminal() -> None:
    made = comparison(*(evaluation(name, [-4.0, -6.0, -20.0, -2.0]) for name in ("a", "b", "c")))
    lines = printed(made, width=80, force_terminal=True)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert lines[0].split() == ["a", "b"]
    assert lines[4].split() == ["return", "-8.00", "-8.00"]
    assert lines[13].split() == ["c"]


def test_title_says_held_out_only_of_seeds_that_are() -> None:
    made = comparison(evaluation("a", [-4.0]))
    assert made.title == f"{ENV}: 4 episodes"
    made.first_seed = EVALUATION_SEED
    assert made.title == f"{ENV}: 4 held-out episodes"


def test_failures_are_listed_below_the_table() -> None:
    lines = printed(comparison(evaluation("a", [-4.0, math.nan])), width=60)
    assert lines[-1].startswith("a, sampled: 1 of 4 episodes could not be played; first error: EnvFailed")


def test_task_without_success_leaves_the_column_empty() -> None:
    report = summarize([EpisodeResult(seed=1, ret=1.0, turns=2, action_tokens=6)], seconds=1.0, lost=0, next_seed=2)
    made = comparison(Evaluation(EvalResult.from_event({**vars(report), "name": "a"}, env=ENV), report))
    assert printed(made, width=60)[1].split()[-5:] == ["1.00", "2.0", "6.0", "0.0%", "6"]
    assert made.tree()["results"][0]["rows"][0]["success"] is None


def test_file_has_numbers_and_episodes(tmp_path: Path) -> None:
    made = comparison(evaluation("a", [-4.25, math.nan]), evaluation("b", [-3.0, -6.1]))
    made.write(tmp_path / "evaluation.json")
    tree = json.loads((tmp_path / "evaluation.json").read_text())
    assert (tree["env"], tree["episodes"], tree["first_seed"], tree["complete"]) == (
        {"id": ENV, "kwargs": {}},
        4,
        7,
        True,
    )
    assert [policy["source"] for policy in tree["policies"]] == ["runs/a", "runs/b"]
    assert tree["policies"][0]["rollout"]["sampling"]["temperature"] == 1.0
    first, second = tree["results"]
    assert first["rows"] == [
        {"seed": 7, "return": -4.25, "success": True, "turns": 10, "invalid_actions": 1, "tokens": 25}
    ]
    assert (first["name"], first["decoding"], first["return_mean"], first["env_failures"]) == ("a", "sampled", -4.25, 1)
    assert [row["return"] for row in second["rows"]] == [-3.0, -6.1]
    assert [(d["name"], d["mean"]) for d in tree["differences"]] == [("b", 1.25)]


def test_plot_shows_every_policy_and_decoding(tmp_path: Path) -> None:
    returns = [-4.0, -6.0, -20.0, -2.0]
    results = [evaluation(name, returns, how).result for name in ("a", "b" * 100) for how in ("sampled", "greedy")]
    picture = matplotlib.image.imread(returns_plot(results, tmp_path / "returns.png", title="x"))
    assert picture.shape[1] == 1600
    for colour in ((0x1F, 0x6F, 0x8B), (0xC8, 0x55, 0x3D)):
        rows = (np.abs(picture[..., :3] - np.array(colour) / 255).max(axis=-1) < 0.02).sum(axis=1)
        assert (rows > 300).sum() >= 2  # the bars of two intervals
    assert [file.name for file in tmp_path.iterdir()] == ["returns.png"]
    taller = matplotlib.image.imread(returns_plot(results * 2, tmp_path / "returns.png", title="x"))
    assert taller.shape == picture.shape  # the same policies again are no more lines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = TinyModelConfig(hidden_size=32, layers=1, heads=1, intermediate_size=32)
    folder = tmp_path_factory.mktemp("model") / "newborn"
    return str(build_tiny_model(["Is it a dog?\nNo.\n"] * 4, folder, config, seed=0))


def let_play(monkeypatch: pytest.MonkeyPatch, *answers: Evaluation | Exception) -> None:
    """Replace the engines by `answers`; test_archer_eval_engine.py plays with real engines."""

    def play(*_: object) -> Iterator[Evaluation]:
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            yield answer

    monkeypatch.setattr("archer.results.evaluation.play_policies", play)


def test_results_go_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    let_play(monkeypatch, evaluation("newborn", [-4.0, -6.0]))
    for _ in range(2):  # twice in the same second, perhaps
        evaluate([model], env=ENV)
    folders = sorted((tmp_path / "evals").iterdir())
    assert len(folders) == 2
    assert all(ENV in folder.name for folder in folders)
    for folder in folders:
        assert sorted(file.name for file in folder.iterdir()) == ["evaluation.json", "returns.png"]
    assert json.loads((folders[0] / "evaluation.json").read_text())["first_seed"] == EVALUATION_SEED
    assert "newborn" in capsys.readouterr().out


def test_results_overwrite_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    let_play(monkeypatch, RunError("never called"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "evaluation.json").write_text("earlier")
    (tmp_path / "file").touch()
    for out, words in (
        ("full", "already contains evaluation.json"),
        ("file", "it is a file; give another folder with --out"),
        ("file/below", "Not a directory; give another folder with --out"),
    ):
        with pytest.raises(ConfigError, match=words):
            evaluate([model], env=ENV, out=tmp_path / out)
    assert (tmp_path / "full" / "evaluation.json").read_text() == "earlier"


def test_finished_evaluations_survive_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    let_play(monkeypatch, evaluation("newborn", [-4.0, -6.0]), RunError("the engine is gone"))
    with pytest.raises(RunError, match="the engine is gone"):
        evaluate([model], env=ENV, sampled=True, greedy=True, out=tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (tree["complete"], len(tree["results"])) == (False, 1)
    assert "the completed results are in" in capsys.readouterr().err
    let_play(monkeypatch, RunError("no engine"))
    with pytest.raises(RunError, match="no engine"):
        evaluate([model], env=ENV, out=tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
