"""The scripted demonstrator of Twenty Questions."""

from __future__ import annotations

import pytest

import envs
from envs.twenty_questions import SUBSET, TwentyQuestionsDemonstrator, TwentyQuestionsSubsetDemonstrator, load_table
from envs.twenty_questions.game import NO, YES


def mean_return(env_id: str, skill: float, episodes: int, **kwargs) -> float:
    (row,) = envs.returns_by_skill(env_id, [skill], episodes=episodes, seed=5, **kwargs)
    return row.mean


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("twenty_questions_subset", {0.0: (-16.8, -15.4), 0.1: (-11.0, -9.5), 0.5: (-5.0, -4.0), 1.0: (-3.2, -2.6)}),
        ("twenty_questions", {0.0: (-20.0, -19.0), 0.5: (-14.2, -12.0), 0.8: (-9.5, -7.5), 1.0: (-7.3, -6.4)}),
    ],
)
def test_returns_rise_with_skill(env_id, expected):
    means = {skill: mean_return(env_id, skill, 400) for skill in expected}
    assert list(means.values()) == sorted(means.values())
    for skill, (low, high) in expected.items():
        assert low < means[skill] < high, f"skill {skill}: {means[skill]}"


def test_the_best_play_finds_every_word():
    asker = TwentyQuestionsDemonstrator(skill=1.0)
    env = envs.make("twenty_questions")
    for word in load_table().things:
        observation, info = env.reset(seed=0, options={"word": word})
        asker.begin(observation, info, seed=0)
        terminated = False
        while not terminated:
            action = asker.act()
            observation, _, terminated, truncated, info = env.step(action)
            assert not truncated, f"{word} was not found"
            asker.see(action, observation, info)


def test_the_subset_has_a_small_set_of_informative_questions():
    asker = TwentyQuestionsSubsetDemonstrator(skill=0.0)
    attributes = {question: mask for question, mask in asker.questions.items() if question not in asker.guesses}
    assert len(asker.guesses) == 10
    assert 20 <= len(attributes) <= 40
    whole = (1 << len(SUBSET)) - 1
    splits = [frozenset({mask, whole & ~mask}) for mask in attributes.values()]
    assert len(set(splits)) == len(splits)
    assert all(2 <= mask.bit_count() <= 8 for mask in attributes.values())


def test_random_play_repeats_questions_and_uses_them_all():
    asked = [d.actions for d in envs.demonstrate("twenty_questions_subset", episodes=300, skill=0.0, seed=0)]
    assert any(len(set(actions)) < len(actions) for actions in asked)
    assert {action for actions in asked for action in actions} == set(
        TwentyQuestionsSubsetDemonstrator(skill=0.0).questions
    )


def test_it_does_not_look_at_the_hidden_word():
    """With the answers for one word and the privileged info of another, it finds the word of the answers."""
    asker = TwentyQuestionsSubsetDemonstrator(skill=1.0)
    truth = SUBSET.index("piano")
    asker.begin("Questions:", {"privileged": {"word": "dog"}}, seed=0)
    for _ in range(10):
        action = asker.act()
        if action == "Is it a piano?":
            break
        answer = YES if asker.questions[action] >> truth & 1 else NO
        asker.see(action, answer, {"privileged": {"word": "dog"}})
    assert action == "Is it a piano?"


def test_noise_lowers_the_return_and_play_continues():
    clean, noisy = (mean_return("twenty_questions_subset", 1.0, 300, noise=noise) for noise in (0.0, 0.2))
    assert noisy < clean - 0.5
    assert noisy > -10.0


def test_it_plays_the_users_own_words():
    words = ["dog", "cat", "car"]
    for d in envs.demonstrate("twenty_questions", episodes=20, skill=1.0, seed=0, words=words):
        assert d.success
        assert len(d.actions) <= 3


def test_a_lost_game_is_terminated_with_compat_only():
    for compat in (False, True):
        games = envs.demonstrate("twenty_questions_subset", episodes=40, skill=0.0, seed=0, compat=compat)
        lost = [game for game in games if not game.success]
        assert lost
        assert all((game.terminated, game.truncated) == (compat, not compat) for game in lost)
