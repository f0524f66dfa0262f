"""Wordle: find a word of five letters in six guesses.

`game` is the environment, `words.txt` the word list and `demonstrator` the scripted player. Start with `game`.
"""

from envs.wordle.demonstrator import WordleDemonstrator
from envs.wordle.game import Wordle, load_words, score

__all__ = ["Wordle", "WordleDemonstrator", "load_words", "score"]
