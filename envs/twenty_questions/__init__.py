"""Twenty Questions: find the hidden object by yes/no questions in plain English.

`data/` holds the objects and their attributes, and `table` reads it. `question_keys` maps a question to a key, `game`
is the environment, and `demonstrator` the scripted player. Answers by models belong to `envs.oracles`. Start with
`game`.
"""

from envs.twenty_questions.demonstrator import TwentyQuestionsDemonstrator, TwentyQuestionsSubsetDemonstrator
from envs.twenty_questions.game import SUBSET, TwentyQuestions, TwentyQuestionsSubset
from envs.twenty_questions.table import Attribute, Table, Thing, load_table

__all__ = [
    "Attribute",
    "SUBSET",
    "Table",
    "Thing",
    "TwentyQuestions",
    "TwentyQuestionsDemonstrator",
    "TwentyQuestionsSubset",
    "TwentyQuestionsSubsetDemonstrator",
    "load_table",
]
