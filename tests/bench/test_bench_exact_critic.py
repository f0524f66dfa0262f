"""The exact values of a player of Twenty Questions without memory, and the critic's correlation with them."""

import numpy as np
import pytest

from bench.belief_values import ALL, player_values, question, question_values
from bench.exact_critic import Correlation
from envs.demonstrations import demonstrate
from envs.twenty_questions.demonstrator import TwentyQuestionsSubsetDemonstrator
from envs.twenty_questions.game import MAX_TURNS, SUBSET

GAMMA = 0.95


def test_the_value_of_a_random_player_is_its_mean_return() -> None:
    texts = list(TwentyQuestionsSubsetDemonstrator(skill=0.0).questions)
    values = player_values({text: 1 / len(texts) for text in texts}, GAMMA)
    played = demonstrate("twenty_questions_subset", episodes=4000, skill=0.0, seed=1, compat=True)
    returns = [sum(GAMMA**turn * reward for turn, reward in enumerate(one.rewards)) for one in played]
    error = np.std(returns) / len(returns) ** 0.5
    assert values[MAX_TURNS, ALL] == pytest.approx(np.mean(returns), abs=4 * error)


def test_the_values_of_a_player_that_only_guesses_have_a_closed_form() -> None:
    """With one word left of n equal guesses, each turn ends the game with probability 1 / n."""
    guesses = {text: 1 / 10 for text in TwentyQuestionsSubsetDemonstrator(skill=0.0).guesses}
    values = player_values(guesses, GAMMA)
    dog = 1 << SUBSET.index("dog")
    expected = 0.0
    for left in range(1, MAX_TURNS + 1):
        expected = 0.9 * (-1.0 + GAMMA * expected)
        assert values[left, dog] == pytest.approx(expected)
    later = values[3]
    assert question_values(later, question("Is it a dog?"), GAMMA)[dog] == 0.0
    assert question_values(later, question("Is it a pen?"), GAMMA)[dog] == pytest.approx(-1.0 + GAMMA * later[dog])
    # No question, and one whose answer is known, cost a turn and change nothing.
    for text in ("Yes.", "Is it a machine?"):
        assert question_values(later, question(text), GAMMA)[dog] == pytest.approx(-1.0 + GAMMA * later[dog])


def test_answers_narrow_the_words() -> None:
    dog = 1 << SUBSET.index("dog")
    assert question("Is it a dog?").left(ALL, "No.") == ALL & ~dog
    assert question("Is it a dog?").left(ALL, "Yes.\n") == dog
    assert question("Is it found on a farm?").left(ALL, "Invalid question.") == ALL
    assert question("Dogs?").left(ALL, "No.") == ALL


def test_the_correlation_weights_actions_by_their_share() -> None:
    found = Correlation()
    found.add(np.array([[1.0, -1.0, 9.0]]), np.array([[2.0, -2.0, -9.0]]), np.array([[0.5, 0.5, 0.0]]))
    assert found.value() == pytest.approx(1.0)
    found.add(np.array([[1.0, -1.0]]), np.array([[-2.0, 2.0]]), np.array([[0.5, 0.5]]))
    assert found.value() == pytest.approx(0.0)
