"""Wordle: its feedback, its words and its demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

import pytest

import envs
from envs import EnvArgumentError
from envs.wordle import WordleDemonstrator, load_words, score
from envs.wordle.game import INVALID, OPENING, score_compat


@pytest.mark.parametrize(
    ("guess", "word", "feedback", "by_the_papers_rule"),
    [
        ("crane", "crane", "ggggg", "ggggg"),
        ("mound", "scale", "bbbbb", "bbbbb"),
        ("heart", "earth", "yyyyy", "yyyyy"),
        # The word has one e, so the second e of the guess is marked b.
        ("eerie", "beach", "bgbbb", "ygbby"),
        ("eagle", "zebra", "yybbb", "yybby"),
        # The e in place is marked first, although it comes last.
        ("eerie", "crane", "bbybg", "yyybg"),
        # Two of three are marked.
        ("eerie", "steel", "yybbb", "yybby"),
        ("allow", "llama", "ygybb", "ygybb"),
        ("kayak", "karma", "ggbyb", "ggbyy"),
    ],
)
def test_feedback(guess, word, feedback, by_the_papers_rule):
    assert score(guess, word) == feedback
    assert score_compat(guess, word) == by_the_papers_rule


def test_feedback_marks_a_letter_as_often_as_the_word_contains_it():
    words = load_words()[::7]
    for guess in words:
        for word in words:
            marks = score(guess, word)
            assert (marks == "ggggg") == (guess == word)
            for letter in set(guess):
                marked = sum(mark != "b" for mark, g in zip(marks, guess, strict=True) if g == letter)
                assert marked == min(guess.count(letter), word.count(letter))


def test_words():
    words = load_words()
    assert 500 < len(words) < 1000
    assert list(words) == sorted(set(words))
    assert all(len(word) == 5 and word.isascii() and word.isalpha() and word.islower() for word in words)


def test_an_episode_word_by_word():
    env = envs.make("wordle")
    observation, info = env.reset(seed=0, options={"word": "apple"})
    assert observation == OPENING
    assert info["privileged"] == {"word": "apple"}
    assert "apple" not in info["task_id"]
    assert env.step("p a p e r")[:4] == ("y y g y b", -1.0, False, False)
    assert env.step("Apply.")[:4] == ("g g g g b", -1.0, False, False)
    assert env.step("a p p l")[:4] == (INVALID, -1.0, False, False)
    observation, reward, terminated, truncated, info = env.step("a p p l e")
    assert (observation, reward, terminated, truncated) == ("g g g g g", 0.0, True, False)
    assert info["success"] is True


@pytest.mark.parametrize("compat", [False, True])
def test_the_sixth_guess_truncates_or_with_compat_terminates(compat):
    env = envs.make("wordle", compat=compat)
    env.reset(seed=0, options={"word": "apple"})
    steps = [env.step(guess) for guess in ["crane", "nonsense", "world", "", "zebra", "apply"]]
    assert [step[2:4] for step in steps] == [(False, False)] * 5 + [(compat, not compat)]
    assert sum(step[1] for step in steps) == -6.0 == env.spec.reward_range[0]
    assert steps[-1][4]["success"] is False


def test_a_right_sixth_guess_wins():
    env = envs.make("wordle")
    env.reset(seed=0, options={"word": "apple"})
    steps = [env.step(guess) for guess in ["crane"] * 5 + ["apple"]]
    assert steps[-1][1:4] == (0.0, True, False)


@pytest.mark.parametrize("action", ["", "apples", "appl", "zzzzz", "a-p-p-l-e", "äpple", "apple apple", "a" * 9999])
def test_other_text_is_invalid_and_costs_a_turn(action):
    env = envs.make("wordle")
    env.reset(seed=0, options={"word": "apple"})
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, reward, terminated, truncated) == (INVALID, -1.0, False, False)
    assert info["invalid_action"] is True


def test_the_users_own_words():
    words = ["apple", "grape", "lemon", "mango"]
    env = envs.make("wordle", words=words)
    assert {env.reset(seed=seed)[1]["privileged"]["word"] for seed in range(100)} == set(words)
    assert env.step("crane")[0] == INVALID
    assert all(game.success for game in envs.demonstrate("wordle", episodes=20, skill=1.0, seed=0, words=words))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"words": ["apples"]}, "'apples' is not a word of 5 letters"),
        ({"words": ["Apple"]}, "'Apple' is not a word"),
        ({"words": []}, "at least one"),
        ({"words": ["apple", "apple"]}, "once"),
        ({"words": "apple"}, "give a list"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("wordle", **arguments)


def test_bad_reset_options():
    env = envs.make("wordle")
    with pytest.raises(EnvArgumentError, match="unknown reset option 'wrod'"):
        env.reset(seed=0, options={"wrod": "apple"})
    with pytest.raises(EnvArgumentError, match=r"no word 'appel' in play: did you mean .*'apple'"):
        env.reset(seed=0, options={"word": "appel"})


@pytest.mark.parametrize("compat", [False, True])
def test_a_skilled_guess_agrees_with_all_feedback(compat):
    rule = score_compat if compat else score
    for game in envs.demonstrate("wordle", episodes=50, skill=1.0, seed=0, compat=compat):
        guesses = [action.replace(" ", "") for action in game.actions]
        for turn, guess in enumerate(guesses):
            for earlier, text in zip(guesses[:turn], game.observations[1:], strict=False):
                assert rule(earlier, guess) == text.replace(" ", "")


def test_it_does_not_look_at_the_hidden_word():
    """With the feedback for one word and the privileged info of another, it finds the word of the feedback."""
    guesser = WordleDemonstrator(skill=1.0)
    info = envs.make("wordle").reset(seed=0, options={"word": "zebra"})[1]
    guesser.begin(OPENING, info, seed=0)
    for _ in range(20):
        action = guesser.act()
        if action == "a p p l e":
            break
        guesser.see(action, " ".join(score(action.replace(" ", ""), "apple")), info)
    assert action == "a p p l e"


def test_returns_by_skill():
    rows = envs.returns_by_skill("wordle", [0.0, 0.3, 1.0], episodes=150)
    for row, (low, high) in zip(rows, [(-6.0, -5.9), (-4.9, -4.0), (-2.85, -2.25)], strict=True):
        assert low < row.mean < high, row
