"""MiniWoB in a real browser: checks without a browser, and tasks that are solved, failed and fuzzed in it."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("browsergym.miniwob", reason="needs the extra miniwob: make install")
pytest.importorskip("playwright", reason="needs the extra miniwob: make install")

from fuzz import fuzz

import envs
from envs import EnvArgumentError, EnvFailedError
from envs.adapters.miniwob_env import (
    BROWSERS,
    FAILED,
    INVALID,
    SOLVED,
    TASKS,
    UNCHANGED,
    VERBS,
    find_browser,
    pages_url,
)

HAS_BROWSER = bool(os.environ.get("ARCHER_CHROMIUM") or any(map(shutil.which, BROWSERS)))


def in_browser(test):
    """Mark a test that starts a browser, and skip it if there is none."""
    lacks = pytest.mark.skipif(not HAS_BROWSER, reason="needs Chromium: apt-get install chromium, or ARCHER_CHROMIUM")
    return pytest.mark.browser(lacks(test))


def element(page: str, role: str, name: str = "") -> str:
    """Return the number of the first element with a role and name."""
    found = re.search(rf"\[(\w+)\] {role} '{re.escape(name)}'", page)
    assert found, f"no {role} {name!r} in:\n{page}"
    return found[1]


@pytest.fixture
def play():
    """Make environments of a task, and close them at the end."""
    made = []

    def make(task: str, **kwargs):
        made.append(envs.make("miniwob", task=task, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_wrong_arguments_are_refused_before_a_browser_starts(monkeypatch, tmp_path):
    monkeypatch.setattr(
        shutil, "which", lambda name: "/bin/chromium" if name in ("chromium", "/bin/chromium") else None
    )
    with pytest.raises(EnvArgumentError, match="there is no task 'click-tset': did you mean 'click-test'"):
        envs.check("miniwob", task="click-tset")
    with pytest.raises(EnvArgumentError, match="settle_ms is -1"):
        envs.check("miniwob", task="click-test", settle_ms=-1)
    with pytest.raises(EnvArgumentError, match="browser is '/no/such/thing', which is not an executable program"):
        envs.check("miniwob", task="click-test", browser="/no/such/thing")
    envs.check("miniwob", task="click-test")
    monkeypatch.setenv("ARCHER_CHROMIUM", "/gone")
    with pytest.raises(EnvArgumentError, match="the environment variable ARCHER_CHROMIUM is '/gone'"):
        find_browser(None)
    monkeypatch.delenv("ARCHER_CHROMIUM")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EnvArgumentError, match=r"apt-get install chromium.* environment variable ARCHER_CHROMIUM"):
        envs.make("miniwob", task="click-test")


def test_the_pages_are_those_of_the_package_or_of_the_variable(monkeypatch):
    monkeypatch.delenv("MINIWOB_URL", raising=False)
    folder = Path(pages_url().removeprefix("file://"))
    assert all((folder / f"{task}.html").is_file() for task in TASKS)
    monkeypatch.setenv("MINIWOB_URL", "http://127.0.0.1:1/miniwob")
    assert pages_url() == "http://127.0.0.1:1/miniwob/"


@in_browser
def test_a_form_is_filled_in_and_submitted(play):
    env = play("enter-text")
    first, info = env.reset(seed=1)
    goal, verbs, page = first.split("\n", 2)
    assert verbs == VERBS
    assert info == {"task_id": "enter-text-1", "success": False, "invalid_action": False}
    text = re.search(r'"(\w+)"', goal)
    assert text, goal
    field, button = element(page, "textbox"), element(page, "button", "Submit")
    assert text[1] in env.step(f"type[{field}] {text[1]}")[0]
    assert env.step(f"type[{field}] {text[1]}")[0] == UNCHANGED
    assert env.step(f"click('{button}')")[:4] == (SOLVED, 1.0, True, False)
    # The same seed gives the same task, and another text fails it.
    assert env.reset(seed=1)[0] == first
    env.step(f"fill('{field}', 'it\\'s \"no\" \u00e9')")
    observation, reward, terminated, _, info = env.step(f"click[{button}]")
    assert (observation, reward, terminated, info["success"]) == (FAILED, 0.0, True, False)
    assert env.reset(seed=2)[0] != first


@in_browser
def test_an_option_is_chosen_from_a_list(play):
    env = play("choose-list")
    first, _ = env.reset(seed=0)
    wanted = re.match(r"Select (.+) from the list", first)
    assert wanted, first
    observation, _, _, _, info = env.step(f"select[{element(first, 'combobox')}] no such option")
    assert observation == "You can't select that, or not so."
    assert info["invalid_action"] is True
    env.step(f"select[{element(first, 'combobox')}] {wanted[1]}")
    assert env.step(f"click[{element(first, 'button', 'Submit')}]")[:3] == (SOLVED, 1.0, True)


@in_browser
def test_boxes_are_ticked(play):
    env = play("click-checkboxes")
    first, _ = env.reset(seed=0)
    wanted = re.match(r"Select (.+) and click Submit", first)
    assert wanted, first
    for name in wanted[1].split(", "):
        env.step(f"check[{element(first, 'checkbox', name)}]")
    assert env.step(f"click[{element(first, 'button', 'Submit')}]")[:3] == (SOLVED, 1.0, True)


@in_browser
def test_any_strings(play):
    """Play 20 random strings twice, because each takes the browser some time."""
    fuzz("miniwob", ["click[13]", "type[14] ", "click[", "99", "]", "check[12]"], actions=20, task="click-button")


@in_browser
def test_missing_elements_and_the_turn_limit(play):
    env = play("click-button", max_turns=3)
    env.reset(seed=0)
    assert env.step("click[999]")[0] == "There is no such element."
    assert env.step("click[1; alert()]")[0] == INVALID
    assert env.step("")[:4] == (INVALID, 0.0, False, True)


@in_browser
def test_killing_the_process_leaves_no_browser(play):
    env = play("click-button")
    env.reset(seed=0)
    child = envs.unwrapped(env)
    tree = descendants(child.pid)
    assert len(tree) > 2, "a driver and a browser"
    os.kill(child.pid, 9)
    with pytest.raises(EnvFailedError):
        env.step("click[13]")
    deadline = time.monotonic() + 60
    while any(map(is_alive, tree)):
        assert time.monotonic() < deadline, f"still there: {list(filter(is_alive, tree))}"
        time.sleep(0.2)
    assert env.reset(seed=0)[0]


def descendants(pid: int) -> list[int]:
    """Return all processes below one, without itself."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, frontier = [], [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
