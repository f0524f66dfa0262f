"""What the pages say is so: the example runs, commands and configurations are accepted, messages are ones we print."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from pages import DOCS, PAGES, ROOT, blocks, commands, first_cells, printed

import envs
from archer.cli import app
from archer.config.fields import fields
from archer.config.loading import config_from_tree, load_config
from archer.config.presets import presets
from archer.driver.inline import run_inline
from archer.driver.run_folder import RunFolder, read_rows

sys.path.insert(0, str(DOCS / "site"))  # docs/site/ is no package: its programs are run, not installed
import generated

SMALL = """
    cycles=1 episodes_per_cycle=4 demonstrations.episodes=16 evaluation.episodes=4 tracking=[]
    model.build.hidden_size=32 model.build.heads=1 model.build.layers=1
    learner.clone.steps=2 learner.clone.held_out=0 learner.clone.batch=4
    learner.critic.steps_per_cycle=1 learner.critic.warmup_steps=1 learner.critic.batch=2
    learner.actor.steps_per_cycle=1 learner.actor.batch=2
"""
"""Settings that make a run of the preset short."""


@pytest.mark.parametrize("name", generated.PAGES)
def test_the_generated_pages_are_those_of_the_code(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generated.PAGES[name](), "run make docs"


@pytest.fixture
def number_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the module of docs/your_environment.md, and return the id of its environment."""
    (code,) = blocks(DOCS / "your_environment.md", "python")
    assert len(code.splitlines()) <= 40
    (tmp_path / "number_game.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "number_game:NumberGame"
    sys.modules.pop("number_game", None)


def test_the_example_environment_keeps_the_rules_and_its_script_wins(number_game: str) -> None:
    env = envs.make(number_game)
    assert env.reset(seed=3)[1] == env.reset(seed=3)[1], "one seed gives one episode"
    observation, reward, terminated, truncated, info = env.step("\0 no number")
    assert (reward, terminated, truncated, info["invalid_action"]) == (-1.0, False, False, True), observation
    for _ in range(7):
        *_, terminated, truncated, info = env.step("9")
    assert (terminated, truncated, info["success"]) == (False, True, False), "the time limit cuts the episode off"
    played = list(envs.demonstrate(number_game, episodes=20, skill=1.0, seed=0))
    assert all(episode.success and episode.ret >= -3 for episode in played), "halving needs four guesses at most"


def test_the_example_environment_trains_by_the_command_of_its_page(number_game: str, tmp_path: Path) -> None:
    (train,) = (found for found in commands(DOCS / "your_environment.md") if found[0] == "train")
    config = load_config(train[1], [*train[2:], *SMALL.split(), f"runs_dir={tmp_path}"])
    with RunFolder.create(tmp_path, config.name, overwrite=False) as folder:
        run_inline(config, folder, resume=False)
        assert [row["metrics"]["episodes"] for row in read_rows(folder.metrics_path) if row["kind"] == "cycle"] == [4]


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_every_command_and_configuration_of_a_page_is_accepted(page: str) -> None:
    for arguments in commands(ROOT / page):
        check_command(arguments)
    for text in blocks(ROOT / page, "yaml"):
        tree = yaml.safe_load(text)
        config_from_tree({"model": {"path": "gpt2"}, "env": {"id": "key_door"}} | tree, source=page, check=False)


def test_commands_are_found_in_the_pages() -> None:
    """Else the test above would look at nothing."""
    assert sum(len(list(commands(page))) for page in PAGES) > 40


def check_command(arguments: list[str]) -> None:
    """Parse a command, and resolve its configuration if it is that of a preset. Fails if either is refused."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="archer")
    while hasattr(command, "list_commands") and arguments and arguments[0] in command.list_commands(context):
        command, arguments = command.get_command(context, arguments[0]), arguments[1:]
    context = command.make_context(command.name, list(arguments), parent=context)
    config, overrides = context.params.get("config"), context.params.get("overrides")
    if config and re.sub(r"^configs/|\.yaml$", "", config) in presets():
        load_config(config, overrides or [], check=False)


def test_fields_and_metrics_that_a_page_names_exist() -> None:
    """In code between backticks: `learner.critic.lr` is a field, `metrics.jsonl` a file."""
    known = {name for name in fields() if "." in name}
    sections = "|".join(sorted({name.partition(".")[0] for name in known}))
    named = re.compile(rf"(?<![\w./-])(?:{sections})(?:\.[a-z_][a-z_0-9]*)+(?![\w/(])")
    metrics = set(re.findall(r"`(archer_\w+)`", (DOCS / "metrics.md").read_text(encoding="utf-8")))
    wrong = []
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            found = set(named.findall(code)) - known
            wrong += [f"{page.name}: {name}" for name in found if not is_file_or_module(name)]
            if page.name != "results.md":  # its methods are named archer_... too
                found = set(re.findall(r"^archer_[a-z_]+", code)) - metrics - {"archer_offline"}
                wrong += [f"{page.name}: {name}" for name in found]
    assert wrong == []


def is_file_or_module(name: str) -> bool:
    """Whether `name` is a file of a run, a kwarg of an environment, or a module of the project."""
    suffix = name.rpartition(".")[2] in ("arrow", "json", "jsonl")
    return suffix or name.startswith("env.kwargs.") or (ROOT / f"{name.replace('.', '/')}.py").is_file()


def test_troubleshooting_quotes_messages_that_we_print() -> None:
    ours = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition("## Messages of other packages")[0]
    quoted = [
        part.strip()
        for cell in first_cells(ours)
        for quote in re.findall(r"`([^`]+)`", cell)
        for part in quote.split("...")
        if " " in part.strip() or part.endswith("Error")
    ]
    assert len(quoted) > 40
    assert [part for part in quoted if part not in printed()] == []
