"""Twenty Questions: the game, its parsing of English and its knowledge table."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs import EnvArgumentError
from envs.twenty_questions import SUBSET, load_table
from envs.twenty_questions.game import INVALID, NO, OPENING, YES, understand
from envs.twenty_questions.question_keys import key

TABLE = load_table()


def ask(word: str, question: str, **kwargs) -> str:
    env = envs.make("twenty_questions", **kwargs)
    env.reset(seed=0, options={"word": word})
    return env.step(question)[0]


def categories_of_words() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for thing in TABLE.things.values():
        found.setdefault(thing.category, []).append(thing.word)
    return found


def test_size_of_the_table():
    categories = categories_of_words()
    assert len(categories) == 17
    assert 150 <= len(TABLE.things) <= 170
    assert len(TABLE.attributes) >= 170
    assert all(len(words) >= 7 for words in categories.values())
    assert len(SUBSET) == 10
    assert set(SUBSET) <= set(TABLE.things)


def test_every_two_objects_differ_in_an_attribute():
    signatures = {
        word: tuple(word in attribute.true_of for attribute in TABLE.attributes.values()) for word in TABLE.things
    }
    alike = [pair for pair in combinations(TABLE.things, 2) if signatures[pair[0]] == signatures[pair[1]]]
    assert not alike


def test_questions_of_an_attribute_are_listed_once():
    for attribute in TABLE.attributes.values():
        keys = [key(question) for question in (attribute.question, *attribute.also)]
        assert len(keys) == len(set(keys)), f"{attribute.id} lists a question twice"
        assert attribute.question.endswith("?")


def test_every_listed_question_is_parsed_as_its_attribute():
    for attribute in TABLE.attributes.values():
        for question in (attribute.question, *attribute.also):
            assert understand(question) is attribute, question
            assert understand(question.upper().rstrip("?")) is attribute, question


def test_every_object_is_guessed_by_every_name():
    for thing in TABLE.things.values():
        assert ask(thing.word, thing.guess) == YES
        for name in thing.names:
            for form in (
                "Is it {}?",
                "Is it a {}?",
                "is it an {}",
                "Is it the {}?",
                "Is the object a {}?",
                "It's a {}.",
            ):
                assert understand(form.format(name)) is thing, form.format(name)


# (question, objects it is true of, objects it is false of)
FACTS = [
    ("Is it an animal?", "dog cat elephant", "teddy bear|tree|truck"),
    ("Is it alive?", "dog tree cactus", "rock|banana|kite"),
    ("Can you eat it?", "banana carrot tomato", "fork|dog|pen"),
    ("Is it man-made?", "truck pen football", "dog|ocean|banana"),
    ("Does it have wheels?", "truck bicycle wheelbarrow", "boat|chair|dog"),
    ("Is it made of wood?", "piano chair pencil", "trumpet|pen|sock"),
    ("Is it made of metal?", "truck scissors trombone", "banana|guitar|sock"),
    ("Can it fly?", "kite helicopter balloon", "car|football|dog"),
    ("Does it use electricity?", "computer refrigerator drill", "piano|hammer|chair"),
    ("Is it bigger than a car?", "truck ocean elephant", "dog|chair|bicycle"),
    ("Is it round?", "basketball orange plate", "football|truck|banana"),
    ("Can you wear it?", "pants watch helmet", "pillow|dog|pen"),
    ("Is it sharp?", "scissors knife saw", "spoon|banana|pillow"),
    ("Is it yellow?", "banana lemon", "apple|ocean|dog"),
    ("Does it have four legs?", "dog chair table", "doll|truck|pen"),
    ("Can you sit on it?", "chair couch horse", "pen|lake|banana"),
    ("Does it have strings?", "guitar piano kite", "drum|flute|hose"),
    ("Is it found in a kitchen?", "fork banana refrigerator", "truck|kite|football"),
    ("Is it soft?", "pillow pants rabbit", "rock|truck|scissors"),
    ("Does it have a screen?", "computer smartphone", "piano|refrigerator|pen"),
]


@pytest.mark.parametrize(("question", "true", "false"), FACTS)
def test_facts(question, true, false):
    attribute = understand(question)
    for word in true.split():
        assert word in attribute.true_of, f"{question} of {word}"
    for word in false.split("|"):
        assert word in TABLE.things
        assert word not in attribute.true_of, f"{question} of {word}"


def test_categories_hold_for_all_their_members():
    for question, category in [
        ("Is it an animal?", "animals"),
        ("Is it a fruit?", "fruits"),
        ("Is it a vegetable?", "vegetables"),
        ("Is it a vehicle?", "vehicles"),
        ("Is it a musical instrument?", "instruments"),
        ("Is it jewelry?", "jewelry"),
        ("Is it a toy?", "toys"),
    ]:
        assert understand(question).true_of == set(categories_of_words()[category])


SAME = [
    ("Can you eat it?", "Is it edible?", "is it something you can eat", "Do people eat it?", "Can it be eaten?"),
    ("Does it have wheels?", "Has it got wheels?", "Is it something with wheels?", "does the object have wheels"),
    ("Is it made of wood?", "Is it made out of wood?", "Is it wooden?", "Is this thing made from wood?"),
    ("Can you sit on it?", "Do you sit on it?", "Is it something that you sit on?", "Could a person sit on it?"),
    ("Can it fly?", "Does it fly?", "Is it something that can fly?", "can this object fly"),
    ("Is it found in a kitchen?", "Would you find it in the kitchen?", "Is it usually kept in a kitchen?"),
    ("Can you write with it?", "Is it used for writing?", "Do you use it to write?", "Is it used to write?"),
    ("Is it electronic?", "Is it an electronic device?", "Would you say it is electronic?"),
    ("Is it green?", "Is it green in color?", "Is it the colour green?", "Is it green in colour?"),
    ("Is it bigger than a person?", "Is it larger than a human being?", "Is it bigger than a human?"),
    ("Is it jewelry?", "Is it a piece of jewellery?", "Is it a kind of jewelry?"),
]


@pytest.mark.parametrize("ways", SAME)
def test_ways_to_ask_the_same(ways):
    meanings = {understand(way) for way in ways}
    assert len(meanings) == 1
    assert None not in meanings


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "???",
        "dog",
        "What is it?",
        "Is it",
        "Is it a?",
        "Is it a dog or a cat?",
        "Is it not a dog?",
        "Is it a golden retriever?",
        "Is it made of metal or wood?",
        "Is it a dog? Is it a cat?",
        "Tell me the word.",
        "Is it a dog?" + " " * 500,
        "é\x00\n\t",
        "'; DROP TABLE words; --",
    ],
)
def test_other_text_is_invalid_and_costs_a_turn(text):
    env = envs.make("twenty_questions")
    env.reset(seed=0, options={"word": "dog"})
    observation, reward, terminated, truncated, info = env.step(text)
    assert (observation, reward, terminated, truncated) == (INVALID, -1.0, False, False)
    assert info["invalid_action"]
    assert env.turn == 1


def test_orange_is_the_fruit_and_has_a_colour():
    assert understand("Is it orange?").word == "orange"
    assert understand("Is it orange in color?").id == "orange_colour"


def test_rewards_and_end_of_an_episode():
    env = envs.make("twenty_questions_subset")
    observation, info = env.reset(seed=3, options={"word": "scissors"})
    assert observation == OPENING
    assert info["privileged"] == {"word": "scissors"}
    assert "scissors" not in info["task_id"]
    assert env.step("Is it sharp?")[:4] == (YES, -1.0, False, False)
    assert env.step("Is it an animal?")[:4] == (NO, -1.0, False, False)
    assert env.step("Is it a pair of pants?")[:4] == (NO, -1.0, False, False)
    observation, reward, terminated, truncated, info = env.step("Is it a pair of scissors?")
    assert (observation, reward, terminated, truncated) == (YES, 0.0, True, False)
    assert info["success"] is True
    assert info["invalid_action"] is False


def test_twenty_turns_without_the_word_are_truncated():
    env = envs.make("twenty_questions")
    env.reset(seed=0)
    steps = [env.step("Is it?") for _ in range(20)]
    assert [step[3] for step in steps] == [False] * 19 + [True]
    assert not any(step[2] for step in steps)
    assert sum(step[1] for step in steps) == -20.0 == env.spec.reward_range[0]
    assert steps[-1][4]["success"] is False


def test_seeds_draw_every_word_about_equally_and_repeat():
    env = envs.make("twenty_questions_subset")
    words = [env.reset(seed=seed)[1]["privileged"]["word"] for seed in range(2000)]
    assert set(words) == set(SUBSET)
    counts = [words.count(word) for word in SUBSET]
    assert sum((count - 200) ** 2 / 200 for count in counts) < 27.9  # chi-square, 9 degrees, p = 0.001
    assert words == [env.reset(seed=seed)[1]["privileged"]["word"] for seed in range(2000)]


def test_global_random_is_unused():
    random.seed(1)
    expected = random.Random(1).random()
    env = envs.make("twenty_questions", noise=0.3)
    env.reset(seed=99)
    env.step("Is it an animal?")
    assert random.random() == expected


def test_noise_flips_answers_at_its_rate_but_never_guesses():
    env = envs.make("twenty_questions", noise=0.2, max_turns=5000)
    env.reset(seed=1, options={"word": "dog"})
    wrong = sum(env.step("Is it an animal?")[0] == NO for _ in range(4000))
    assert abs(wrong / 4000 - 0.2) < 0.026  # four standard errors
    assert all(env.step("Is it a cat?")[0] == NO for _ in range(200))
    assert env.step("Is it a dog?")[2]


def test_a_seed_gives_the_same_noisy_episode():
    def play(seed):
        env = envs.make("twenty_questions", noise=0.4)
        env.reset(seed=seed, options={"word": "dog"})
        return [env.step("Is it an animal?")[0] for _ in range(20)]

    assert play(1) == play(1)
    assert len({tuple(play(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"noise": -0.1}, "noise"),
        ({"noise": 0.5}, "noise"),
        ({"words": ["dgo"]}, "did you mean 'dog'"),
        ({"words": []}, "at least one"),
        ({"words": ["dog", "dog"]}, "once"),
        ({"words": "dog"}, "give a list"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("twenty_questions", **arguments)


def test_bad_reset_options():
    env = envs.make("twenty_questions_subset")
    with pytest.raises(EnvArgumentError, match="unknown reset option 'wrod'"):
        env.reset(seed=0, options={"wrod": "dog"})
    with pytest.raises(EnvArgumentError, match="no word 'tiger' in play"):
        env.reset(seed=0, options={"word": "tiger"})


NAMES = [name for thing in TABLE.things.values() for name in thing.names]
FRAGMENTS = st.sampled_from(
    [
        "is it",
        "can you",
        "does it",
        "do you",
        "have",
        "a",
        "an",
        "the",
        "?",
        "it",
        "made of",
        "you",
        "something",
        *NAMES,
    ]
)
ACTIONS = st.one_of(
    st.text(max_size=300),
    st.lists(FRAGMENTS, max_size=12).map(" ".join),
    st.sampled_from([a.question for a in TABLE.attributes.values()]),
    st.just("x" * 100_000),
)


@settings(max_examples=1000, deadline=None)
@given(action=ACTIONS, seed=st.integers(0, 2**63 - 1))
def test_every_string_is_an_action(action, seed):
    env = envs.make("twenty_questions")
    _, info = env.reset(seed=seed)
    observation, reward, terminated, truncated, step_info = env.step(action)
    assert observation in (YES, NO, INVALID)
    assert info["privileged"]["word"] not in observation
    assert reward == (0.0 if terminated else -1.0)
    assert terminated == step_info["success"]
    assert not truncated
    assert env.turn == 1
    env.reset(seed=seed)
    assert env.step(action)[0] == observation


@pytest.mark.parametrize("compat", [False, True])
def test_the_twentieth_question_truncates_or_with_compat_terminates(compat: bool):
    env = envs.make("twenty_questions_subset", compat=compat)
    env.reset(seed=0, options={"word": "dog"})
    for _ in range(19):
        assert env.step("Is it a pen?")[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step("Is it a pen?")
    assert (reward, terminated, truncated) == (-1.0, compat, not compat)
    assert info["success"] is False
