"""Web forms: sites, grammar, tasks and demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

from collections import deque

import pytest

import envs
from envs import EnvArgumentError
from envs.web_forms import draw_task
from envs.web_forms.demonstrator import next_actions
from envs.web_forms.game import FAILED, INVALID, SOLVED, valid_actions
from envs.web_forms.grammar import MAX_LENGTH, Action, read_action, write_action
from envs.web_forms.site import MAX_TEXT, Element, Page, Posted, Site, act, begin
from envs.web_forms.tasks import KINDS, LEVELS

every_kind = pytest.mark.parametrize("kind", KINDS)

FIRST = """\
Log in as "mia" with password "rocket6". Under Profile, turn on Receipt, then press Save.
Actions: click[n], type[n] text, select[n] option.
Page: Welcome
Log in to see your account.
[1] link Log in"""
LOGIN_PAGE = """\
Page: Log in
[1] textbox User: empty
[2] textbox Password: empty
[3] button Log in
[4] link Home"""
PROFILE_PAGE = """\
Page: Profile
[1] combobox Country: Japan (Chile, Egypt, Japan, Norway, Peru, Spain)
[2] checkbox Receipt: off
[3] button Save
[4] link Account"""
LOGIN = [
    ("click[log in]", LOGIN_PAGE),
    ("click[3]", "Wrong user or password."),
    ("type[1] mia", "[1] textbox User: mia"),
    ("fill('2', 'rocket6')", "[2] textbox Password: rocket6"),
    ("click[3]", "Page: Account\n[1] link Profile\n[2] link Privacy\n[3] link Home"),
    ("click[1]", PROFILE_PAGE),
    ("check[2]", "[2] checkbox Receipt: on"),
    ("select[1] Atlantis", "There is no such option."),
    ("click[3]", SOLVED),
]


def site() -> Site:
    """Return one page with a field of each sort, and a link to a second page and back."""
    elements = (
        Element("text", "Hello."),
        Element("textbox", "Name"),
        Element("combobox", "Size", options=("Small", "Large")),
        Element("checkbox", "News"),
        Element("radio", "Card", group="Pay"),
        Element("radio", "Cash", group="Pay"),
        Element("link", "Help", to="help"),
        Element("button", "Clear", does="clear"),
        Element("button", "Send", does="post", form="Order", sends=("Name", "Size", "News", "Pay")),
    )
    pages = {"form": Page("Order", elements), "help": Page("Help", (Element("link", "Order", to="form"),))}
    return Site(pages, "form", {"Name": "", "Size": "Small", "News": False, "Pay": "Cash"})


def after(*actions: str):
    """Return the outcome of the last of some actions on `site()`."""
    state, outcome = begin(site()), None
    for text in actions:
        action = read_action(text)
        assert action is not None
        outcome = act(site(), state, action)
        state = outcome.state
    assert outcome is not None
    return outcome


def test_an_episode_word_by_word():
    env = envs.make("web_forms", kind="log_in")
    assert env.reset(seed=0)[0] == FIRST
    for action, expected in LOGIN:
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation == expected
        assert reward == terminated == info["success"] == (expected == SOLVED)
        assert not truncated


def test_the_submission_contains_the_filled_in_values():
    filled = after("type[1] Ada  Park", "select[2] large", "check[3]", "click[4]", "click[Send]")
    assert filled.state.posted == Posted("Order", {"Name": "Ada Park", "Size": "Large", "News": True, "Pay": "Card"})
    cleared = after("type[1] Ada", "check[3]", "click[Clear]", "click[help]", "click[1]", "click[8]")
    assert cleared.state.posted == Posted("Order", site().initial)


@pytest.mark.parametrize(
    ("actions", "key", "value"),
    [
        (["type[1] a", "type[1] b"], "Name", "b"),
        (["type[1] a", "type[1]"], "Name", ""),
        (["type[1] " + "x" * 200], "Name", "x" * MAX_TEXT),
        (["click[3]"], "News", True),
        (["click[3]", "click[3]"], "News", False),
        (["check[3]", "check[3]"], "News", True),
        (["check[3]", "uncheck[3]"], "News", False),
        (["check[4]"], "Pay", "Card"),
        (["click[4]", "click[5]"], "Pay", "Cash"),
        (["type[1] a", "click[1]"], "Name", "a"),
        (["select[2] Huge"], "Size", "Small"),
        (["click[2]"], "Size", "Small"),
    ],
)
def test_effects_of_actions(actions, key, value):
    outcome = after(*actions)
    assert outcome.understood
    assert outcome.state.values == site().initial | {key: value}


@pytest.mark.parametrize(
    "action",
    ["click[9]", "click[0]", "click[-1]", "click[²]", "click[Nowhere]", "type[3] x", "select[1] Small", "check[1]"],
)
def test_an_action_that_does_not_apply_changes_nothing(action):
    outcome = after(action)
    assert not outcome.understood
    assert outcome.says
    assert outcome.state == begin(site())


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("click[3]", Action("click", "3")),
        (" Click [ 3 ] ", Action("click", "3")),
        ("click[Add to basket]", Action("click", "Add to basket")),
        ("click('3')", Action("click", "3")),
        ('click("3")', Action("click", "3")),
        ("type[2] Ada  Park", Action("type", "2", "Ada Park")),
        ("type[2]", Action("type", "2")),
        ("type[2] [x]", Action("type", "2", "[x]")),
        ("fill('2', 'Ada\\'s, \"x\"')", Action("type", "2", 'Ada\'s, "x"')),
        ("fill('2', '')", Action("type", "2")),
        ("select_option('4', \"Peru\")", Action("select", "4", "Peru")),
        ("check[5]", Action("check", "5")),
        ("uncheck('5')", Action("uncheck", "5")),
    ],
)
def test_wordings_of_an_action(text, action):
    assert read_action(text) == action
    assert read_action(write_action(action)) == action


@pytest.mark.parametrize(
    "text",
    [
        "",
        "click",
        "click[]",
        "click[ ]",
        "click 3",
        "click(3)",
        "click[1] now",
        "click[1",
        "press[1]",
        "fill('1'",
        "x" * MAX_LENGTH * 2,
    ],
)
def test_other_text_is_invalid_and_costs_a_turn(text):
    assert read_action(text) is None
    env = envs.make("web_forms", level=1)
    _, before = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(text)
    assert (observation, reward, terminated, truncated) == (INVALID, 0.0, False, False)
    assert info["invalid_action"] is True
    assert info["privileged"] == before["privileged"]
    assert env.turn == 1


@every_kind
def test_tasks_are_sound_and_differ(kind):
    tasks = [draw_task(seed, (kind,)) for seed in range(200)]
    for task in tasks:
        assert task.kind == kind
        for page in task.site.pages.values():
            assert len(page.numbered) <= 12
            for element in page.elements:
                assert not element.to or element.to in task.site.pages
                assert element.kind in ("link", "button", "text") or element.key in task.site.initial
            keys = [e.key for e in page.numbered if e.kind not in ("link", "button", "radio")]
            assert len(keys) == len(set(keys))
        changed = {key for key, value in task.needs.items() if task.site.initial[key] != value}
        assert changed == set(task.needs), "something is asked that is so from the start"
        assert all(str(value) in task.instruction for value in task.needs.values() if isinstance(value, str))
    assert len({task.instruction for task in tasks}) > 10


@every_kind
def test_every_submitted_field_counts(kind):
    """A submission with one wrong field fails; the texts of the actions do not matter."""
    env = envs.make("web_forms", kind=kind)
    failed = 0
    for seed in range(30):
        _, info = env.reset(seed=seed)
        while True:
            task, state = info["privileged"]["task"], info["privileged"]["state"]
            (best, *_) = next_actions(task, state)
            button = task.site.pages[state.page].find(best.element)
            if best.verb == "click" and button is not None and button.does == "post":
                break
            *_, info = env.step(write_action(best))
        wrong = next((a for a in info["valid_actions"] if changes_what_is_sent(task, state, a)), None)
        if wrong is not None:
            env.step(wrong)
            observation, reward, terminated, _, info = env.step(write_action(best))
            assert (observation, reward, terminated, info["success"]) == (FAILED, 0.0, True, False)
            failed += 1
    assert failed > 0 or kind in ("link", "find", "search"), "forms of no fields"


def changes_what_is_sent(task, state, text) -> bool:
    action = read_action(text)
    assert action is not None
    changed = act(task.site, state, action).state
    return changed.page == state.page and any(
        changed.values[key] != state.values[key] for key in task.wanted.fields if key in state.values
    )


def test_the_wrong_product_or_button_fails():
    env = envs.make("web_forms", kind="find")
    _, info = env.reset(seed=0)
    task = info["privileged"]["task"]
    for step in ("click[1]", "click[1]"):
        *_, info = env.step(step)
    wrong = next(
        a
        for a in ("click[1]", "click[2]")
        if act(task.site, info["privileged"]["state"], Action("click", a[6])).state.posted != task.wanted
    )
    observation, reward, terminated, _, _ = env.step(wrong)
    assert (observation, reward, terminated) == (FAILED, 0.0, True)


def shortest(task) -> int:
    """Return the turns of a shortest solution, by breadth-first search over all actions."""
    quoted = [value for value in task.needs.values() if isinstance(value, str)]
    queue, seen = deque([(begin(task.site), 0)]), set()
    while True:
        state, turns = queue.popleft()
        if state.posted == task.wanted:
            return turns
        if state.posted is not None:
            continue
        for text in valid_actions(task.site.pages[state.page], quoted):
            action = read_action(text)
            assert action is not None
            after = act(task.site, state, action).state
            key = (after.page, tuple(sorted(after.values.items())), str(after.posted))
            if key not in seen:
                seen.add(key)
                queue.append((after, turns + 1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("pages", "log_in", "form")])
def test_the_best_play_takes_the_shortest_way(kind):
    for game in envs.demonstrate("web_forms", episodes=10, skill=1.0, seed=0, kind=kind):
        assert game.success
        assert len(game.actions) == shortest(draw_task(game.seed, (kind,)))


@every_kind
def test_the_best_play_is_always_within_the_turns(kind):
    games = list(envs.demonstrate("web_forms", episodes=200, skill=1.0, seed=0, kind=kind))
    assert {game.ret for game in games} == {1.0}
    assert max(len(game.actions) for game in games) <= 7


def test_the_demonstrator_continues_from_any_state():
    games = list(envs.demonstrate("web_forms", episodes=300, skill=0.7, seed=0, max_turns=300))
    assert all(game.terminated for game in games)


def test_shelf_names_do_not_reveal_their_products():
    task = draw_task(0, ("search",))
    assert not any(
        page.title in task.instruction for page in task.site.pages.values() if page.title.startswith("Shelf")
    )


def test_levels_grow_and_one_kind_can_be_selected():
    assert set(LEVELS[1]) < set(LEVELS[2]) < set(LEVELS[3]) == set(KINDS)
    env = envs.make("web_forms", level=2)
    assert {env.reset(seed=seed)[1]["task_id"].split("-")[0] for seed in range(100)} == set(LEVELS[2])
    env = envs.make("web_forms", kind="pages")
    assert {env.reset(seed=seed)[1]["task_id"] for seed in range(3)} == {f"pages-{seed}" for seed in range(3)}


def test_bad_arguments():
    with pytest.raises(EnvArgumentError, match=r"level is 4, must be one of \(1, 2, 3\)"):
        envs.make("web_forms", level=4)
    with pytest.raises(EnvArgumentError, match="there is no kind 'lists': did you mean 'list'"):
        envs.check("web_forms", kind="lists")


def test_returns_by_skill():
    rows = envs.returns_by_skill("web_forms", [0.0, 0.5, 1.0], episodes=200)
    for row, (low, high) in zip(rows, [(0.02, 0.17), (0.48, 0.76), (1.0, 1.0)], strict=True):
        assert low <= row.mean <= high, row
