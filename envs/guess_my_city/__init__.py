"""Guess My City: find the city that somebody is from by asking about it in plain English.

`data/` holds the facts and `table` reads them. `conditions` are what yes/no questions may ask and `lexicon` the phrases
that mean them; `sentences` takes a question's shape, `questions` understands it, `answers` answers it. `game` is the
environment and `asker` the scripted demonstrator.
"""

from .asker import CityAsker
from .game import GuessMyCity
from .table import City, Country, Table, TableError, load_table

__all__ = ["City", "CityAsker", "Country", "GuessMyCity", "Table", "TableError", "load_table"]
