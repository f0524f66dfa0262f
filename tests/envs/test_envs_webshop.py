"""WebShop: catalogue, search, goals, pages and demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from fuzz import fuzz

import envs
from envs import EnvArgumentError
from envs.webshop import Item, best_return, draw_goal, load_catalogue, score
from envs.webshop.catalogue import MAX_ITEMS, RESULTS, Catalogue, code_of, read_data
from envs.webshop.demonstrator import query
from envs.webshop.game import MAX_TURNS
from envs.webshop.goals import Goal, best_score, fitting_options, score_type
from envs.webshop.grammar import read_action
from envs.webshop.search import Index, split_words
from envs.webshop.texts import HELP, INVALID, NO_BOX, NO_BUTTON, NO_WORDS, NOTHING_FOUND


def play(env, *actions: str) -> str:
    """Return the observation of the last of `actions`."""
    for action in actions:
        observation, *_ = env.step(action)
    return observation


def item(index: int = 0, **changes) -> Item:
    """Return a small table lamp, with changes."""
    category = next(category for category in read_data()[1] if category.name == "lighting")
    lamp = Item(
        index=index,
        code=code_of(index),
        title="Lumeo brass table lamp with shade, touch control",
        category=category,
        type="table lamp",
        brand="Lumeo",
        material="brass",
        part="shade",
        attributes=("touch control", "warm light", "mid century"),
        options=(("color", ("gold", "black")), ("height", ("12 inch", "18 inch"))),
        price=48,
        rating=4.5,
    )
    return replace(lamp, **changes)


def lamp_goal() -> Goal:
    options = (("color", "gold"), ("height", "18 inch"))
    return Goal(0, "table lamp", ("warm light", "mid century"), options, 60, "Find a lamp.")


GOAL = "Find quick drying, slim fit hiking pants with color stone, size 34, price lower than 90 dollars."
PAGE_1 = """Page 1 of 9.
[1] Mistral fleece hiking pants with belt, tummy control $66
[2] Whitlock denim hiking pants with pockets, water resistant $37
[3] Ketterly fleece hiking pants with lining, tummy control $61"""
PAGE_2 = """Page 2 of 9.
[1] Silvane nylon hiking pants with lining, water resistant $32
[2] Falkirk corduroy hiking pants with drawstring, stretch fabric $42
[3] Maridel denim hiking pants with pockets, low rise $72"""
COMPACT = [
    ("click[1]", NO_BUTTON),
    ("search[]", NO_WORDS),
    ("search[hiking pants]", PAGE_1),
    ("click[< prev]", NO_BUTTON),
    ("search[hiking pants]", NO_BOX),
    ("click[next >]", PAGE_2),
    ("click[4]", NO_BUTTON),
    ("click[2]", "color: indigo, charcoal, burgundy, forest\nsize: 28, 34"),
    ("click[34]", "Chosen: 34."),
    ("click[stone]", NO_BUTTON),
    ("click[features]", "- stretch fabric\n- water resistant\n- tummy control\n- with drawstring"),
    ("click[buy now]", NO_BUTTON),
    ("click[< prev]", "Chosen: 34."),
    ("click[28]", "Chosen: 28."),
    (
        "click[reviews]",
        '3 stars: "Would buy it again."\n4 stars: "Good for the price."\n3 stars: "Just what I wanted."',
    ),
    ("click[< prev]", "Chosen: 28."),
    ("click[< prev]", PAGE_2),
    ("click[< prev]", PAGE_1),
    ("click[1]", "color: khaki, stone, forest\nsize: 36, 38"),
    (
        "click[description]",
        "Hiking pants of fleece by Mistral, with belt: tummy control, slim fit, low rise. In clothing, bottoms.",
    ),
    ("click[back to search]", "Search box."),
    ("search[zzz !?]", NOTHING_FOUND),
    ("click[back to search]", "Search box."),
    ("  Search[ Hiking   PANTS ]", PAGE_1),
    ("CLICK[ 1 ]", "color: khaki, stone, forest\nsize: 36, 38"),
    ("click[Stone]", "Chosen: stone."),
    ("click[Buy Now]", "Bought. Score: 0.60."),
]
FULL_PAGE = """Page 2 of 9.
[b0vbya2jzu] Silvane nylon hiking pants with lining, water resistant $32
[b0th5wj9hb] Falkirk corduroy hiking pants with drawstring, stretch fabric $42
[b06d0j5b9r] Maridel denim hiking pants with pockets, low rise $72
[< prev] [next >] [back to search]"""
FULL_ITEM = """Falkirk corduroy hiking pants with drawstring, stretch fabric
Price: $42
Rating: 4.2
color: [indigo] [charcoal] [burgundy] [forest]
size: [28] [34] (chosen: 34)
[buy now] [description] [features] [reviews] [< prev] [back to search]"""


def test_an_episode_word_by_word():
    env = envs.make("webshop", results_per_page=3, max_turns=99)
    assert env.reset(seed=0)[0] == f"{GOAL} {HELP}"
    for action, expected in COMPACT:
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation == expected, action
        assert reward == (0.6 if expected.startswith("Bought") else 0.0)
        assert terminated == (reward > 0)
        assert not truncated
        assert info["invalid_action"] == (observation in (NO_BUTTON, NO_WORDS, NO_BOX))
        assert info["success"] is False  # only a score of 1 is one


def test_full_pages_are_complete():
    env = envs.make("webshop", results_per_page=3, observe="full")
    env.reset(seed=0)
    assert play(env, "search[hiking pants]", "click[next >]") == FULL_PAGE
    assert play(env, "click[B0TH5WJ9HB]", "click[34]") == FULL_ITEM
    assert play(env, "click[features]").endswith("\n[< prev] [back to search]")


def test_exactly_the_listed_elements_can_be_clicked():
    for observe in ("compact", "full"):
        shop = envs.unwrapped(envs.make("webshop", observe=observe)).shop
        rng, seen = random.Random(0), Counter()
        visit = shop.search("shirt")
        for _ in range(2000):
            seen[visit.page] += 1
            names = shop.clickables(visit)
            assert len(set(names)) == len(names)
            for name in ("", "search", "9", "-1", "0", "buy", "next", "prev"):
                assert name in names or shop.click(visit, name) is None
            after = {name: shop.click(visit, name) for name in names if name != "buy now"}
            assert None not in after.values()
            visit = rng.choice(list(after.values()) or [shop.search(rng.choice(["shirt", "lamp gold", "zzz"]))])
        assert set(seen) == {"search", "results", "item", "description", "features", "reviews"}


def test_turns_without_buying_are_truncated():
    env = envs.make("webshop")
    env.reset(seed=0)
    steps = [env.step("click[nothing]") for _ in range(MAX_TURNS)]
    assert [step[3] for step in steps] == [False] * (MAX_TURNS - 1) + [True]
    assert not any(step[2] for step in steps)
    assert {step[1] for step in steps} == {0.0}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("search[red lamp]", ("search", "red lamp")),
        (" CLICK[Buy\n Now] ", ("click", "buy now")),
        ("search[]", ("search", "")),
        ("click[< prev]", ("click", "< prev")),
        *(
            (text, None)
            for text in ("", "search", "click[", "click]x[", "search[a[b]]", "click[a]]", "search[a] click[b]")
        ),
        *(
            (text, None)
            for text in ("buy now", "think[x]", "search(lamp)", "click[" + "a" * 300 + "]", "\u017fearch[a]")
        ),
    ],
)
def test_the_grammar(action, expected):
    assert read_action(action) == expected


@pytest.mark.parametrize("action", ["", "click[", "search[a[b]]", "x" * 100_000, "\x00", '{"name": "search"', "\ud800"])
def test_an_invalid_action_costs_a_turn_and_keeps_the_page(action):
    env = envs.make("webshop")
    env.reset(seed=0)
    *_, before = env.step("search[lamp]")
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, reward, terminated, truncated) == (INVALID, 0.0, False, False)
    assert info == before | {"invalid_action": True}
    assert env.turn == 2


def test_ten_thousand_random_actions_on_full_pages():
    """Compact pages, the default, are fuzzed with all other environments."""
    kwargs = {"observe": "full", "items": 30, "goals": 3}
    shop = envs.unwrapped(envs.make("webshop", **kwargs)).shop
    codes = [f"click[{item.code}]" for item in shop.catalogue.items[:5]]
    words = [
        "search[",
        "click[",
        "]",
        "search[lamp]",
        "search[running shirt cotton]",
        "click[features]",
        "click[black]",
    ]
    fuzz("webshop", [*words, *codes, "click[next >]", "click[< prev]", "click[buy now]"], actions=5_000, **kwargs)


# The catalogue and its search


def test_a_catalogue_is_made_once_and_its_seed_decides_it():
    catalogue = load_catalogue(500)
    assert envs.unwrapped(envs.make("webshop", items=500)).catalogue is catalogue
    assert load_catalogue(500, seed=1).items != catalogue.items
    assert load_catalogue(500, departments=["home", "beauty"]) is load_catalogue(500, departments=("beauty", "home"))
    assert {item.category.department for item in load_catalogue(500, departments=["home"]).items} == {"home"}


def test_items_are_sound():
    catalogue = load_catalogue(3000)
    assert [item.index for item in catalogue.items] == list(range(3000))
    for item in catalogue.items:
        category = item.category
        assert item.type in category.types
        assert category.price[0] <= item.price <= category.price[1]
        assert len(set(item.attributes)) == len(item.attributes) >= 3
        for name, values in item.options:
            assert len(values) >= 2
            assert set(values) <= set(category.options[name])
    assert {item.type for item in catalogue.items} == {t for category in read_data()[1] for t in category.types}
    assert len({code_of(index) for index in range(MAX_ITEMS)}) == MAX_ITEMS


def bm25(documents: list[str], words: str) -> list[float]:
    """Return the score by Lucene's BM25 with k1 1.5 and b 0.75, computed from its definition."""
    split = [split_words(document) for document in documents]
    mean = sum(map(len, split)) / len(split)
    scores = [0.0] * len(split)
    for word in split_words(words):
        holding = sum(word in words for words in split)
        weight = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
        for number, words_ in enumerate(split):
            scores[number] += weight * (word in words_) / (1 + 1.5 * (0.25 + 0.75 * len(words_) / mean))
    return scores


def test_search_ranks_by_bm25_and_ties_by_position():
    documents = [item.words() for item in load_catalogue(400).items]
    documents += documents[:20]
    index = Index(documents)
    for words in (
        "brass table lamp",
        "cotton",
        "gluten free high protein pack",
        "lamp lamp LAMP!",
        "norwell 7 black zzz",
    ):
        scores = bm25(documents, words)
        found = index.search(words, RESULTS)
        assert len(found) == min(RESULTS, sum(score > 0 for score in scores))
        assert all(scores[number] > 0 for number in found)
        best = sorted(range(len(documents)), key=lambda number: (-round(scores[number], 4), number))
        assert list(found) == best[: len(found)]


@pytest.mark.parametrize("words", ["", "zzz", "the of with", "!!!", "\x00", "\ud800", "日本"])
def test_a_search_without_matches_is_empty(words):
    assert load_catalogue(50).search(words) == ()


def test_a_search_for_all_words_of_an_item_finds_it_first():
    for size in (1, 7, 1000):
        catalogue = load_catalogue(size)
        for item in catalogue.items[:50]:
            assert catalogue.items[catalogue.search(item.words())[0]].words() == item.words()


# Goals and the score of a purchase


def test_goals_fit_the_item_they_were_drawn_from():
    catalogue, rng = load_catalogue(), random.Random(0)
    goals = [draw_goal(catalogue, rng) for _ in range(500)]
    for goal in goals:
        item = catalogue.items[goal.item]
        assert best_score(catalogue, goal, item) == 1.0
        assert fitting_options(goal, item) == dict(goal.options)
        assert item.price < goal.limit <= item.price + 40
        for said in (goal.type, *goal.attributes, *(value for _, value in goal.options), f"{goal.limit} dollars"):
            assert said in goal.instruction
        assert item.brand not in goal.instruction
    assert Counter(len(goal.attributes) for goal in goals).keys() == {1, 2, 3}
    assert len({goal.instruction.split()[0] for goal in goals}) == 3  # Find, I (am, need), Buy


@pytest.mark.parametrize(
    ("changes", "chosen", "expected"),
    [
        ({}, {"color": "gold", "height": "18 inch"}, 5 / 5),
        ({}, {"color": "black", "height": "18 inch"}, 4 / 5),
        ({}, {}, 3 / 5),
        ({}, {"height": "gold"}, 3 / 5),
        ({"price": 60}, {"color": "gold"}, 4 / 5),  # at most the limit
        ({"price": 61}, {"color": "gold"}, 3 / 5),
        ({"attributes": ("warm light", "easy install", "battery operated")}, {"color": "gold"}, 3 / 5),
        # Another item of the same department and category, whose title shares "lamp".
        ({"type": "floor lamp"}, {"color": "gold", "height": "18 inch"}, 5 / 5),
        ({"type": "wall sconce", "brand": "Halden", "material": "steel", "part": "base"}, {"color": "gold"}, 0.0),
    ],
)
def test_the_score(changes, chosen, expected):
    catalogue = Catalogue((item(), item(1, **changes)))
    assert score(catalogue, lamp_goal(), catalogue.items[1], chosen) == pytest.approx(expected)


def test_the_type_score_is_that_of_the_paper():
    elsewhere = next(category for category in read_data()[1] if category.name == "snacks")
    other = {"category": elsewhere, "brand": "Halden", "material": "oat", "part": "seeds", "type": "trail mix"}
    assert score_type(item(), item()) == 1.0
    assert score_type(item(), item(**other)) == 0.0
    one_of_five = item(**other | {"brand": "Lumeo"})
    assert score_type(item(), one_of_five) == 0.5
    two_of_five = item(**other | {"brand": "Lumeo", "material": "brass"})
    assert score_type(item(), two_of_five) == 1.0
    same_category = item(**other | {"category": item().category, "brand": "Lumeo"})
    assert score_type(item(), same_category) == 1.0
    long_title = item(type=" ".join(["table", *(f"n{i}" for i in range(10))]), part="n10")
    assert score_type(long_title, one_of_five) == 0.1


def test_a_number_of_goals_repeats_them():
    env = envs.make("webshop", goals=3)
    goals = {(env.reset(seed=seed)[0], env.reset(seed=seed)[1]["task_id"]) for seed in range(50)}
    assert len(goals) == 3
    assert {task for _, task in goals} == {"goal-0", "goal-1", "goal-2"}


# The demonstrator


@pytest.mark.parametrize(
    "kwargs", [{}, {"items": 20}, {"observe": "full", "results_per_page": 2}, {"items": 8000}], ids=str
)
def test_the_best_play_reaches_the_best_return(kwargs):
    played = list(envs.demonstrate("webshop", episodes=60, skill=1.0, seed=0, **kwargs))
    assert all(episode.terminated for episode in played)
    assert sum(episode.ret for episode in played) / 60 > 0.95
    for episode in played[:20]:
        assert episode.ret <= best_return(episode.seed, **kwargs) == 1.0


def test_the_best_play_continues_from_any_state():
    for episode in envs.demonstrate("webshop", episodes=100, skill=0.7, seed=0, max_turns=200):
        assert episode.terminated
        assert max(episode.rewards) == episode.rewards[-1]


def test_fewer_turns_lower_the_best_return():
    returns = [best_return(0, max_turns=turns) for turns in (2, 3, 4, 5)]
    assert returns == sorted(returns)
    assert returns[0] == 0.0
    assert 0.0 < returns[1] < returns[3] == 1.0


def test_the_demonstrator_searches_for_the_words_of_the_instruction():
    env = envs.make("webshop")
    for seed in range(50):
        instruction = env.reset(seed=seed)[0].replace(",", "")
        goal = envs.unwrapped(env).goal_of(seed)
        assert all(word in instruction for word in query(goal).split())


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"items": 0}, "items is 0, must be a whole number from 1 to 100,000"),
        ({"items": 100_001}, "items is 100001"),
        ({"items": "many"}, "items is 'many'"),
        ({"catalogue_seed": [1]}, r"catalogue_seed is \[1\], must be a whole number"),
        ({"results_per_page": 51}, "results_per_page is 51, must be a whole number from 1 to 50"),
        ({"goals": 0}, "goals is 0, must be a whole number from 1, or None"),
        ({"observe": "html"}, r"observe is 'html', must be one of \('compact', 'full'\)"),
        ({"departments": "home"}, "departments is 'home': give a list of beauty, clothing"),
        ({"departments": []}, r"departments is \[\]"),
        ({"departments": ["hoem"]}, "no department 'hoem': did you mean 'home'"),
        ({"colour": 1}, "takes no argument 'colour'"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("webshop", **kwargs)


def test_returns_by_skill():
    rows = envs.returns_by_skill("webshop", [0.0, 0.5, 1.0], episodes=200)
    for row, (low, high) in zip(rows, [(0.0, 0.05), (0.2, 0.4), (0.95, 1.0)], strict=True):
        assert low <= row.mean <= high, row
