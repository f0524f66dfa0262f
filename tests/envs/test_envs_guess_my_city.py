"""Guess My City: its table, its parsing of English, its answers, its rules and its demonstrator."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

import envs
from envs import EnvArgumentError
from envs.guess_my_city import GuessMyCityDemonstrator, load_table
from envs.guess_my_city.answers import NO, SECRET, UNKNOWN, YES, answer
from envs.guess_my_city.demonstrator import fact_questions
from envs.guess_my_city.game import INVALID, OPENING
from envs.guess_my_city.question_parser import Guess, OpenQuestion, YesNoQuestion, read
from envs.guess_my_city.table import read_data

TABLE = load_table()
SUBJECTS = [*read_data("questions.toml")["subjects"], "name"]
KINDS = read_data("questions.toml")["kinds"].split()
SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lmrl_guess_my_city_sample.json"


def ask(city: str, question: str, **kwargs) -> str:
    env = envs.make("guess_my_city", **kwargs)
    env.reset(seed=0, options={"city": city})
    return env.step(question)[0]


def test_size_of_the_table():
    assert 85 <= len(TABLE.cities) <= 100
    assert len(TABLE.countries) >= 50
    assert {continent for city in TABLE.cities.values() for continent in city.continents} == {
        *("Africa", "Asia", "Europe", "North America", "South America", "Oceania"),
    }


def test_no_two_cities_give_the_same_answers():
    readings = [read(question) for question in fact_questions()]
    given = {city.name: tuple(answer(city, r) for r in readings) for city in TABLE.cities.values()}
    assert not [pair for pair in combinations(given, 2) if given[pair[0]] == given[pair[1]]]


def test_no_answer_contains_the_city():
    open_questions = [
        OpenQuestion(subject, words) for subject in SUBJECTS for words in [(), *((kind,) for kind in KINDS)]
    ]
    for city in TABLE.cities.values():
        for reading in open_questions:
            assert not city.named_in(answer(city, reading)), (city.name, reading)
        for constant in (YES, NO, UNKNOWN, SECRET, INVALID, OPENING):
            assert not city.named_in(constant), city.name


def test_cities_whose_name_is_part_of_another_word():
    assert ask("Singapore", "Which country is your city in?") == "It is a country of its own."
    assert ask("Delhi", "What is the capital of your country?") == "It is the capital itself."
    assert ask("Mumbai", "What is the capital of your country?") == "The capital is New Delhi."
    assert ask("Mexico City", "Which country is your city in?") == "In Mexico."
    assert TABLE.cities["Lima"].named_in("the climate")
    assert not TABLE.cities["New York"].named_in("a new port in York")


# city, question, answer
FACTS = [
    ("Paris", "Is your city in Europe?", YES),
    ("Paris", "Is your city located in Asia?", NO),
    ("Paris", "Is it a European capital known for the Eiffel Tower?", UNKNOWN),
    ("Paris", "Is it a European city known for the Eiffel Tower?", YES),
    ("Rome", "Is it a European city known for the Eiffel Tower?", NO),
    ("Paris", "Is your hometown the capital of France?", YES),
    ("Chengdu", "Is your city the capital of China?", NO),
    ("Chengdu", "Is your city the capital of Sichuan?", YES),
    ("Wuhan", "Is it the capital of Sichuan province?", NO),
    ("Istanbul", "Is your city located in Europe or Asia?", YES),
    ("Ankara", "Is your city located in Europe?", UNKNOWN),
    ("Cairo", "Does the Nile run through your city?", YES),
    ("Alexandria", "Is your city on the Mediterranean coast?", YES),
    ("Cairo", "Is your city on the coast?", NO),
    ("Tokyo", "Is your city on an island?", YES),
    ("New York", "Is your city on an island?", UNKNOWN),
    ("Lagos", "Does your city have more than 5 million people?", YES),
    ("Vienna", "Does it have over 5,000,000 inhabitants?", NO),
    ("London", "Is the population of your city over 10 million?", UNKNOWN),
    ("Sydney", "Is your city in the southern hemisphere?", YES),
    ("Sydney", "Did your city host the Olympics in 2000?", YES),
    ("Sydney", "Did your city host the Winter Olympics?", NO),
    ("Moscow", "Do people in your city speak Russian?", YES),
    ("Barcelona", "Is your city in the north of Spain?", YES),
    ("Cape Town", "Is your city in the northern part of South Africa?", NO),
    ("Paris", "Is your city near Lyon?", UNKNOWN),
    ("Paris", "Is your city known for its beautiful unicorns?", UNKNOWN),
    ("Nairobi", "Is your city near the Eiffel Tower?", UNKNOWN),
    ("Medellín", "Is your city Guatapé?", UNKNOWN),
    ("Rome", "Is your city Catholic?", UNKNOWN),
    ("Tehran", "Is your city predominantly Muslim?", YES),
    ("Rio de Janeiro", "Is your city famous for its carnival?", YES),
    ("Paris", "Which language do people speak?", "People mostly speak French."),
    ("Istanbul", "Which continent is your city on?", "In Europe and Asia."),
    ("Berlin", "What is the name of the famous gate in your city?", "It is known for the Brandenburg Gate."),
    ("Kyoto", "Can you tell me about any local dishes?", "People like kaiseki, yudofu and matcha sweets."),
    ("Athens", "Has your city ever hosted the Olympics?", YES),
    ("Athens", "When did your city hold the Olympics?", "It held the Summer Olympics of 1896 and 2004."),
    ("London", "What river runs through your city?", "The Thames River runs through it."),
    ("Paris", "What is the name of your city?", SECRET),
    ("Paris", "Does its name start with P?", SECRET),
]


@pytest.mark.parametrize(("city", "question", "expected"), FACTS)
def test_facts(city, question, expected):
    assert ask(city, question) == expected


def test_every_city_is_guessed_by_every_name():
    for city in TABLE.cities.values():
        for name in (city.name, *city.also):
            for form in (
                "Is it {}?",
                "Is your city {}?",
                "Is the city you are from {}, " + city.country.name + "?",
                "{}",
            ):
                reading = read(form.format(name))
                assert isinstance(reading, Guess), form.format(name)
                assert reading.city is city


@pytest.mark.parametrize(
    ("question", "city"),
    [
        ("is it bogota", "Bogotá"),
        ("Is the city you're from SÃO PAULO?", "São Paulo"),
        ("Is your city St. Petersburg?", "Saint Petersburg"),
        ("Based on that, I will guess: Is the city you are from Is the city Tehran.?", "Tehran"),
        ("Are you from Xi'an, China?", "Xi'an"),
        ("Do you live in New York City?", "New York"),
        ("My guess is Ho Chi Minh City", "Ho Chi Minh City"),
        ("Is your city located in Paris?", "Paris"),
    ],
)
def test_ways_to_guess(question, city):
    assert read(question) == Guess(TABLE.cities[city])


@pytest.mark.parametrize(
    "question",
    [
        "Is your city to the west of Paris?",
        "Is it Paris, Texas?",
        "Is it Paris or London?",
        "Is it not Paris?",
        "Is your city bigger than Paris?",
        "Is it known for the Paris Opera?",
        "Is it in the Greater Paris area?",
    ],
)
def test_naming_a_city_in_a_question_is_a_guess_with_compat_only(question):
    for compat in (False, True):
        env = envs.make("guess_my_city", compat=compat)
        env.reset(seed=0, options={"city": "Paris"})
        observation, reward, terminated, _, info = env.step(question)
        assert (reward, terminated, info["success"]) == ((0.0, True, True) if compat else (-1.0, False, False))
        assert observation in ((YES,) if compat else (UNKNOWN, NO))


def test_a_city_outside_the_table_is_a_wrong_guess():
    assert read("Is the city you are from Bogor?") == Guess(None)
    assert ask("Jakarta", "Is it Bogor?") == NO


@pytest.mark.parametrize(
    "text", ["", "???", "Hello.", "Tell", "Paris London Rome", "x" * 5000, "is", "\ud800", "Do cats purr?"]
)
def test_other_text_is_invalid_and_costs_a_turn(text):
    env = envs.make("guess_my_city")
    env.reset(seed=0, options={"city": "Paris"})
    observation, reward, terminated, truncated, info = env.step(text)
    assert (observation, reward, terminated, truncated) == (INVALID, -1.0, False, False)
    assert info["invalid_action"]


def test_rewards_and_end_of_an_episode():
    env = envs.make("guess_my_city")
    observation, info = env.reset(seed=3, options={"city": "bogota"})
    assert observation == OPENING
    assert info["privileged"] == {"city": "Bogotá"}
    assert not TABLE.cities["Bogotá"].named_in(info["task_id"])
    assert env.step("Is your city in South America?")[:4] == (YES, -1.0, False, False)
    assert env.step("Is it Lima?")[:4] == (NO, -1.0, False, False)
    observation, reward, terminated, truncated, info = env.step("Is it Bogotá, Colombia?")
    assert (observation, reward, terminated, truncated) == (YES, 0.0, True, False)
    assert info["success"] is True


@pytest.mark.parametrize("compat", [False, True])
def test_the_twentieth_question_truncates_or_with_compat_terminates(compat):
    env = envs.make("guess_my_city", compat=compat)
    env.reset(seed=0, options={"city": "Paris"})
    steps = [env.step("Is it Lima?") for _ in range(20)]
    assert [step[2:4] for step in steps] == [(False, False)] * 19 + [(compat, not compat)]
    assert sum(step[1] for step in steps) == -20.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cities": ["Pariss"]}, "did you mean 'Paris'"),
        ({"cities": []}, "at least one"),
        ({"cities": ["Bogotá", "bogota"]}, "twice"),
        ({"cities": "Paris"}, "give a list"),
        ({"cities": [7]}, "no city 7 in the table"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("guess_my_city", **arguments)


def test_bad_reset_options():
    env = envs.make("guess_my_city", cities=["Paris", "Rome"])
    with pytest.raises(EnvArgumentError, match="unknown reset option 'town'"):
        env.reset(seed=0, options={"town": "Paris"})
    with pytest.raises(EnvArgumentError, match="no city 'Lima' in play"):
        env.reset(seed=0, options={"city": "Lima"})


def test_every_question_of_the_demonstrator_is_parsed_completely():
    for question in fact_questions():
        reading = read(question)
        assert isinstance(reading, OpenQuestion) or (
            isinstance(reading, YesNoQuestion) and reading.whole and reading.conditions
        ), question


def test_returns_rise_with_skill():
    rows = envs.returns_by_skill("guess_my_city", [0.0, 0.1, 0.3, 1.0], episodes=150, seed=5)
    for row, (low, high) in zip(rows, [(-20.0, -18.5), (-15.0, -11.0), (-7.5, -4.5), (-1.2, -0.9)], strict=True):
        assert low < row.mean < high, row


def test_the_demonstrator_does_not_look_at_the_hidden_city():
    """With the answers for one city and the privileged info of another, it finds the city of the answers."""
    asker = GuessMyCityDemonstrator(skill=1.0)
    truth = TABLE.cities["Lagos"]
    asker.begin(OPENING, {"privileged": {"city": "Paris"}}, seed=0)
    for _ in range(5):
        action = asker.act()
        if action == "Is it Lagos?":
            break
        asker.see(action, answer(truth, read(action)), {"privileged": {"city": "Paris"}})
    assert action == "Is it Lagos?"


@pytest.mark.skipif(not SAMPLE.is_file(), reason="no shared/data/lmrl_guess_my_city_sample.json beside the checkout")
def test_questions_of_real_players_are_parsed():
    conversations = json.loads(SAMPLE.read_text(encoding="utf-8"))
    understood = answered = agreed = denied = asked = known = 0
    for conversation in conversations:
        city = TABLE.city_of_name.get(conversation["word"].split(",")[0])
        for exchange in conversation["conversation"]:
            question, _, theirs = exchange.rpartition("?")
            reading = read(question + "?")
            asked += 1
            understood += reading is not None
            if city is None or reading is None:
                continue
            known += 1
            ours = answer(city, reading)
            assert not city.named_in(ours), (city.name, exchange)
            answered += ours != UNKNOWN
            word = theirs.split()[:1]
            if ours in (YES, NO) and word and word[0].strip(",.").lower() in ("yes", "no"):
                agreed += ours.lower().startswith(word[0].strip(",.").lower())
                denied += not ours.lower().startswith(word[0].strip(",.").lower())
    assert understood / asked > 0.99
    assert answered / known > 0.6
    # The reference answers come from a language model and contain errors, such as Casablanca on the Mediterranean.
    assert agreed / (agreed + denied) > 0.94
