"""Wordle: find a word of five letters in six guesses.

`words.txt` holds the words, `game` is the environment and `guesser` the scripted demonstrator.
"""

from envs.wordle.game import Wordle, load_words, score
from envs.wordle.guesser import WordleGuesser

__all__ = ["Wordle", "WordleGuesser", "load_words", "score"]
