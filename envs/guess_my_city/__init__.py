"""Guess My City: find the city that somebody is from by asking about it in plain English.

`data/` holds the facts and `table` reads them. `conditions` are what yes/no questions may ask and `lexicon` the phrases
that mean them; `sentences` takes a question's shape, `questions` understands it, `answers` answers it. `game` is the
environment and `asker` the scripted demonstrator.
"""

from envs.guess_my_city.asker import CityAsker
from envs.guess_my_city.game import GuessMyCity
from envs.guess_my_city.table import City, Country, Table, TableError, load_table

__all__ = ["City", "CityAsker", "Country", "GuessMyCity", "Table", "TableError", "load_table"]
