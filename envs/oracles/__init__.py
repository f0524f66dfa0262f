"""Oracles: answer the questions of guessing games from a table, a model, an endpoint or recorded answers.

`base` defines the interface, `settings` the options, and `make` returns the oracle for given settings. `seq2seq` and
`endpoint` ask a model; `recorded` stores their answers and replays them. The tables of facts belong to the games. Start
with `base`, then `make`.
"""

from envs.oracles.base import Enquiry, Oracle, OracleError, TableOracle
from envs.oracles.make import make_oracle
from envs.oracles.recorded import Recorded
from envs.oracles.settings import EndpointSettings, Seq2SeqSettings, TableSettings

__all__ = [
    "EndpointSettings",
    "Enquiry",
    "Oracle",
    "OracleError",
    "Recorded",
    "Seq2SeqSettings",
    "TableOracle",
    "TableSettings",
    "make_oracle",
]
