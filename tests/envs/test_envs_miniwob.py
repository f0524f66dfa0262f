"""MiniWoB in a real browser: what is there without one, and tasks solved, failed and fuzzed in it."""

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
    """Marks a test that starts a browser, and skips it where there is none."""
    lacks = pytest.mark.skipif(not HAS_BROWSER, reason="needs Chromium: apt-get install chromium, or ARCHER_CHROMIUM")
    return pytest.mark.browser(lacks(test))


def element(page: str, role: str, name: str = "") -> str:
    """The number of the first element of a role and name."""
    found = re.search(rf"\[(\w+)\] {role} '{re.escape(name)}'", page)
    assert found, f"no {role} {name!r} in:\n{page}"
    return found[1]


@pytest.fixture
def play():
    """Makes environments of a task and closes them."""
    made = []

    def make(task: str, **kwargs):
        made.append(envs.make("miniwob", task=task, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_what_is_wrong_is_said_before_any_browser_starts(monkeypatch, tmp_path):
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


def test_the_pages_are_the_packages_or_those_that_are_named(monkeypatch):
    monkeypatch.delenv("MINIWOB_URL", raising=False)
    folder = Path(pages_url().removeprefix("file://"))
    assert all((folder / f"{task}.html").is_file() for task in TASKS)
    monkeypatch.setenv("MINIWOB_URL", "http://127.0.0.1:1/miniwob")
    assert pages_url() == "http://127.0.0.1:1/miniwob/"


@in_browser
def test_a_form_is_filled_in_and_submitted(play):
    env = play("enter-text")
    told, info = env.reset(seed=1)
    goal, verbs, page = told.split("\n", 2)
    assert verbs == VERBS
    assert info == {"task_id": "enter-text-1", "success": False, "invalid_action": False}
    text = re.search(r'"(\w+)"', goal)
    assert text, goal
    field, button = element(page, "textbox"), element(page, "button", "Submit")
    assert text[1] in env.step(f"type[{field}] {text[1]}")[0]
    assert env.step(f"type[{field}] {text[1]}")[0] == UNCHANGED
    assert env.step(f"click('{button}')")[:4] == (SOLVED, 1.0, True, False)
    # Again, with another text: the same seed asks the same, and what is submitted counts.
    assert env.reset(seed=1)[0] == told
    env.step(f"fill('{field}', 'it\\'s \"no\" \u00e9')")
    observation, reward, terminated, _, info = env.step(f"click[{button}]")
    assert (observation, reward, terminated, info["success"]) == (FAILED, 0.0, True, False)
    assert env.reset(seed=2)[0] != told


@in_browser
def test_a_list_is_chosen_from(play):
    env = play("choose-list")
    told, _ = env.reset(seed=0)
    wanted = re.match(r"Select (.+) from the list", told)
    assert wanted, told
    observation, _, _, _, info = env.step(f"select[{element(told, 'combobox')}] no such option")
    assert observation == "You can't select that, or not so."
    assert info["invalid_action"] is True
    env.step(f"select[{element(told, 'combobox')}] {wanted[1]}")
    assert env.step(f"click[{element(told, 'button', 'Submit')}]")[:3] == (SOLVED, 1.0, True)


@in_browser
def test_boxes_are_ticked(play):
    env = play("click-checkboxes")
    told, _ = env.reset(seed=0)
    wanted = re.match(r"Select (.+) and click Submit", told)
    assert wanted, told
    for name in wanted[1].split(", "):
        env.step(f"check[{element(told, 'checkbox', name)}]")
    assert env.step(f"click[{element(told, 'button', 'Submit')}]")[:3] == (SOLVED, 1.0, True)


@in_browser
def test_any_strings(play):
    """40 of them, played twice, since each takes the browser a while."""
    fuzz("miniwob", ["click[13]", "type[14] ", "click[", "99", "]", "check[12]"], actions=40, task="click-button")


@in_browser
def test_elements_that_are_not_there_and_turns_that_run_out(play):
    env = play("click-button", max_turns=3)
    env.reset(seed=0)
    assert env.step("click[999]")[0] == "There is no such element."
    assert env.step("click[1; alert()]")[0] == INVALID
    assert env.step("")[:4] == (INVALID, 0.0, False, True)


@in_browser
def test_no_browser_is_left_where_its_process_is_killed(play):
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
    """All processes under one, itself left out."""
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
