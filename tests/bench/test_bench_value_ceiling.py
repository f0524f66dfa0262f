"""What a critic can explain in Twenty Questions: the states of an episode, and the explained variance of means."""

import pytest

from bench.value_ceiling import KNOWN, Answers, Visit, explained, visits
from envs.demonstrations import Demonstration


def test_words_that_agree_with_the_answers_shrink_to_the_hidden_word() -> None:
    episode = Demonstration(
        env="twenty_questions_subset",
        seed=0,
        task_id="",
        observations=["Questions:", "No.", "No.", "Yes."],
        actions=["Is it a dog?", "Is it a dog?", "Is it a banana?"],
        rewards=[-1.0, -1.0, 0.0],
        terminated=True,
        truncated=False,
        success=True,
    )
    found = visits(episode, Answers())
    assert [(visit.turn, visit.ret) for visit in found] == [(0, -2.0), (1, -1.0), (2, 0.0)]
    assert [len(visit.words) for visit in found] == [10, 9, 9]
    assert found[0].words - found[1].words == {"dog"}


def test_explained_variance_is_that_of_group_means_on_other_visits() -> None:
    words = frozenset({"dog", "pen"})
    train = [Visit(turn, words, ret) for turn, ret in ((0, -4.0), (0, -2.0), (1, -1.0))]
    # Means -3 and -1; the third turn, which no training visit has, gets the mean of all, -7/3.
    test = [Visit(0, words, -3.0), Visit(1, words, -1.0)]
    assert explained(train, test, KNOWN["turn"]) == 1.0
    assert explained(train, test, KNOWN["count"]) == 0.0
    assert explained(train, [*test, Visit(2, words, -7 / 3)], KNOWN["turn"]) == pytest.approx(1.0)
    # Errors of +1 and -1 beside returns of -4 and -2.
    assert explained(train, [Visit(0, words, -4.0), Visit(0, words, -2.0)], KNOWN["turn"]) == 0.0
