"""Guess My City: find the city that a person is from, by questions in plain English.

`data/` holds the facts, and `table` reads it. `text_folding` normalizes text, `sentences` determines the kind of a
question, and `conditions` defines what yes/no questions can test. `lexicon` maps phrases to conditions; `place_phrases`
and `fact_phrases` list them. `question_parser` parses a question, and `answers` answers it. `game` is the environment,
and `demonstrator` the scripted player. Answers by models belong to `envs.oracles`. Start with `game`, then
`question_parser`.
"""

from envs.guess_my_city.demonstrator import GuessMyCityDemonstrator
from envs.guess_my_city.game import GuessMyCity
from envs.guess_my_city.table import City, Country, Table, TableError, load_table

__all__ = ["City", "Country", "GuessMyCity", "GuessMyCityDemonstrator", "Table", "TableError", "load_table"]
