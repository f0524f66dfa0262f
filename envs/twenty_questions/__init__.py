"""Twenty Questions: find the hidden object by yes/no questions in plain English.

`data/` holds the objects and what is true of them, `table` reads it, `questions` understands a question, `game` is the
environment and `asker` the scripted demonstrator.
"""

from envs.twenty_questions.asker import Asker, SubsetAsker
from envs.twenty_questions.game import SUBSET, TwentyQuestions, TwentyQuestionsSubset
from envs.twenty_questions.table import Attribute, Table, Thing, load_table

__all__ = [
    "SUBSET",
    "Asker",
    "Attribute",
    "SubsetAsker",
    "Table",
    "Thing",
    "TwentyQuestions",
    "TwentyQuestionsSubset",
    "load_table",
]
