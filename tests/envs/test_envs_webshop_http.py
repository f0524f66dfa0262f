"""WebShop on a server, against a small site that serves pages of the same layout."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator

import pytest
from fuzz import fuzz
from webshop_site import GOALS, Site, serve

import envs
from envs import EnvArgumentError, EnvFailedError, EnvTimeoutError
from envs.webshop.demonstrator import query
from envs.webshop.goals import fitting_options
from envs.webshop.texts import HELP, INVALID, NO_BOX, NO_BUTTON, NO_WORDS, NOTHING_FOUND, SEARCH_BOX
from envs.webshop_http.game import LONGEST_TITLE
from envs.webshop_http.html_pages import read_page


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Site, str]]:
    site = Site()
    with serve(site) as url:
        yield site, url


@pytest.fixture
def site(served) -> Iterator[Site]:
    served[0].visits.clear()
    yield served[0]
    served[0].broken = ""


@pytest.fixture
def url(served) -> str:
    return served[1]


def make(url: str, **kwargs) -> envs.TimeLimit:
    return envs.make("webshop_http", url=url, **{"goals": GOALS} | kwargs)


def goal_of(site: Site, info: dict):
    return site.goal(int(info["task_id"].removeprefix("goal-")))


def buy_the_goal(site: Site, env, seed: int, *, skip: int = 0) -> float:
    """Search for the goal's item, find it page by page, choose its options except `skip` of them, and buy."""
    _, info = env.reset(seed=seed)
    goal = goal_of(site, info)
    item = site.catalogue.items[goal.item]
    *_, info = env.step(f"search[{query(goal)}]")
    while f"click[{item.code}]" not in info["valid_actions"]:
        *_, info = env.step("click[next >]")
    env.step(f"click[{item.code}]")
    for value in list(fitting_options(goal, item).values())[skip:]:
        env.step(f"click[{value}]")
    _, reward, terminated, truncated, info = env.step("click[Buy Now]")
    assert terminated
    assert not truncated
    assert info["success"] == (reward == 1.0)
    return reward


def test_a_purchase_has_the_score_of_the_server(site, url):
    env = make(url, observe="full")
    for seed in range(10):
        assert buy_the_goal(site, env, seed) == 1.0
    goal = goal_of(site, env.reset(seed=0)[1])
    expected = site.worth(goal, site.catalogue.items[goal.item], dict(goal.options[1:]))
    assert buy_the_goal(site, env, 0, skip=1) == expected < 1.0
    assert not any("//" in path for path in site.visits)
    env.close()


def test_the_pages_in_words(site, url):
    env = make(url)
    observation, info = env.reset(seed=3)
    goal = goal_of(site, info)
    assert observation == f"{goal.instruction} {HELP}"
    assert len(info["valid_actions"]) == 1
    assert not env.step(info["valid_actions"][0])[4]["invalid_action"]
    hits = [site.catalogue.items[index] for index in site.catalogue.search("table lamp")]
    observation, *_, info = [env.step(action) for action in ("click[back to search]", "search[table lamp]")][-1]
    lines = observation.splitlines()
    assert lines[0] == f"Page 1 (Total results: {len(hits)})."
    title = f"{hits[0].title} & more"
    title = title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1].rstrip() + "…"
    assert lines[1] == f"[1] {title} ${hits[0].price}.0"
    assert info["valid_actions"] == [
        *(f"click[{n}]" for n in range(1, 11)),
        "click[back to search]",
        "click[next >]",
    ]
    observation, *_ = env.step("click[1]")
    (color, colors), (height, heights) = hits[0].options
    assert observation == f"{color}: {', '.join(colors)}\n{height}: {', '.join(heights)}"
    assert env.step(f"click[{colors[1]}]")[0] == f"Chosen: {colors[1]}."
    assert env.step(f"click[{heights[0]}]")[0] == f"Chosen: {colors[1]}, {heights[0]}."
    assert env.step("click[features]")[0] == "\n".join(hits[0].attributes)
    assert env.step("click[< prev]")[0] == f"Chosen: {colors[1]}, {heights[0]}."


def test_full_pages_are_complete(site, url):
    env = make(url, observe="full", max_turns=20)
    env.reset(seed=0)
    item = site.catalogue.items[site.catalogue.search("table lamp")[0]]
    last = env.step("search[table lamp]")[0].splitlines()
    assert last[1] == f"[{item.code}] {item.title} & more ${item.price}.0"
    assert last[-1] == "[back to search] [next >]"
    observation, *_ = env.step(f"click[{item.code.upper()}]")
    (name, values), (other, others) = item.options
    buttons = "[back to search] [< prev] [description] [features] [reviews] [buy now]"
    assert observation == (
        f"{item.title}\nPrice: ${item.price}.0\nRating: {item.rating}\n"
        f"{name}: {' '.join(f'[{v}]' for v in values)}\n{other}: {' '.join(f'[{v}]' for v in others)}\n{buttons}"
    )
    assert f"(chosen: {values[0]})" in env.step(f"click[{values[0]}]")[0]
    assert env.step("click[description]")[0] == f"{item.title}. Very good.\n[back to search] [< prev]"
    assert [env.step(f"click[{name}]")[0] for name in ("< prev", "reviews")][1].startswith('"Fine"\n4.0\nI like it.\n')


def test_an_invalid_action_is_answered_and_keeps_the_page(site, url):
    env = make(url, max_turns=50)
    env.reset(seed=0)
    asked = len(site.visits)
    for action, says in [
        ("", INVALID),
        ("click[", INVALID),
        ("search[a[b]]", INVALID),
        ("x" * 100_000, INVALID),
        ("\ud800", INVALID),
        ("search[]", NO_WORDS),
        ("search[<> / \\ # ?]", NO_WORDS),
        ("click[buy now]", NO_BUTTON),
        ("click[search]", NO_BUTTON),
    ]:
        observation, reward, terminated, truncated, info = env.step(action)
        assert (observation, reward, terminated, truncated) == (says, 0.0, False, False), action
        assert info["invalid_action"] is True
    assert len(site.visits) == asked, "none of these is the server's business"
    assert NOTHING_FOUND in env.step("search[zzz ../.. %zF 'quoted' {y} caffé 茶]")[0]
    assert env.step("search[lamp]")[0] == NO_BOX
    assert env.step("click[back to search]")[0] == SEARCH_BOX
    assert env.step("search[<c>]")[4]["invalid_action"] is False, "a back door of the search must be words like others"


def test_a_refusal_of_the_server_is_answered_and_keeps_the_page(site, url):
    env = make(url)
    env.reset(seed=0)
    env.step("search[table lamp]")
    site.codes, codes = {}, site.codes
    observation, reward, terminated, _, info = env.step("click[1]")
    site.codes = codes
    assert (observation, reward, terminated) == ("The shop can't do that (HTTP 500).", 0.0, False)
    assert info["invalid_action"] is True
    assert not env.step("click[1]")[4]["invalid_action"]


def test_turns_without_buying_are_truncated(site, url):
    env = make(url)
    env.reset(seed=0)
    steps = [env.step("click[nothing]") for _ in range(10)]
    assert [step[3] for step in steps] == [False] * 9 + [True]


def test_the_seed_decides_the_episode(site, url):
    def play(seed: int) -> list:
        env, rng = make(url, observe="full"), random.Random(seed)
        observation, info = env.reset(seed=seed)
        played, over = [(observation, info)], False
        while not over:
            observation, reward, terminated, truncated, info = env.step(rng.choice(info["valid_actions"]))
            played.append((observation, reward, terminated, truncated, info))
            over = terminated or truncated
        env.close()
        return played

    assert [play(seed) for seed in range(3)] == [play(seed) for seed in range(3)]
    assert len({play(seed)[0][0] for seed in range(5)}) > 1
    env = make(url, goals=1, first_goal=7)
    assert {env.reset(seed=seed)[1]["task_id"] for seed in range(5)} == {"goal-7"}


def test_episodes_of_one_goal_do_not_share_a_session(site, url):
    one, other = make(url, goals=1), make(url, goals=1)
    one.reset(seed=0)
    other.reset(seed=0)
    assert len({path for path in site.visits if path.endswith("_fixed_0")}) == 2


def test_ten_thousand_random_actions(site, url):
    words = ["search[", "click[", "]", "search[table lamp]", "search[cotton shirt 7]", "click[1]", "click[2]"]
    words += ["click[next >]", "click[< prev]", "click[buy now]", "click[features]", "click[black]", "back to search"]
    fuzz("webshop_http", words, actions=5_000, url=url, goals=GOALS)  # each played twice


# Failures


def test_a_closed_port_is_reported():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        env = make(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(EnvFailedError, match=r"nothing answers at http://127.0.0.1:\d+ .*start the WebShop server"):
            env.reset(seed=0)


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_slow_server_is_reported(site, url, how):
    env = make(url, timeout_s=0.3)
    env.reset(seed=0)
    site.broken = how
    before = time.monotonic()
    with pytest.raises(EnvTimeoutError, match=f"no complete answer from {url} within 0.3 s"):
        env.step("search[lamp]")
    assert time.monotonic() - before < 4
    site.broken = ""
    assert env.reset(seed=0)[0]


def test_other_sites_are_refused(site, url):
    env = make(url)
    site.broken = "garbage"
    with pytest.raises(EnvFailedError, match=r"not a page of WebShop.*It works!"):
        env.reset(seed=0)
    site.broken = "gateway"
    with pytest.raises(EnvFailedError, match="answers HTTP 502: no server behind it"):
        env.reset(seed=0)


def test_a_goal_that_the_server_lacks_is_reported(site, url):
    env = make(url, goals=1, first_goal=GOALS)
    with pytest.raises(EnvFailedError, match=rf"HTTP 500: check that a WebShop server with at least {GOALS + 1} goals"):
        env.reset(seed=0)


def test_it_runs_on_a_thread(site, url):
    async def play() -> tuple:
        env = envs.AsyncEnv(make(url), timeout_s=30)
        observation, _ = await env.areset(seed=0)
        step = await env.astep("search[lamp]")
        await env.aclose()
        return observation, step

    observation, step = asyncio.run(play())
    assert HELP in observation
    assert step[0].startswith("Page 1")


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"url": "localhost:3000"}, "url is 'localhost:3000', must be like http://127.0.0.1:3000"),
        ({"url": "ftp://x"}, "must be like"),
        ({"url": "http://"}, "must be like"),
        ({"url": "http://a b:x"}, "not an address"),
        ({"url": 7}, "not an address"),
        ({"timeout_s": 0}, "timeout_s is 0, must be a number of seconds above 0"),
        ({"timeout_s": "soon"}, "timeout_s is 'soon'"),
        ({"goals": 0}, "goals is 0, must be a whole number from 1"),
        ({"first_goal": -1}, "first_goal is -1, must be a whole number from 0"),
        ({"observe": "html"}, "observe is 'html'"),
        ({"port": 1}, "takes no argument 'port'"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("webshop_http", **kwargs)


@pytest.mark.parametrize(
    ("html", "says"),
    [
        ("", "neither #instruction-text nor #reward"),
        ("<h3 id=reward>Your score<pre>much</pre></h3>", "its #reward is not a number"),
        (
            "<div id=instruction-text><h4>x</h4></div><form action=/done/a/b/c><button>Buy Now</button></form>",
            "its address to buy has no options",
        ),
    ],
)
def test_malformed_pages_are_refused(html, says):
    with pytest.raises(EnvFailedError, match=says):
        read_page(html)


def test_brackets_in_an_option_become_round_ones():
    page = read_page(
        """<div id="instruction-text"><h4>Instruction:<br>buy  it</h4></div><input type="radio" name="size"
        value="Large [US 8]" data-url="/next"><form action="/done/s/c/%7B'size':%20'x'%7D"><button>Buy Now</button>"""
    )
    assert page.instruction == "buy it"
    assert page.links["large (us 8)"].address == "/next"
    assert page.chosen == {"size": "x"}
