"""Who answers the questions of a guessing game: a table, a model, an endpoint, or answers that were recorded.

`base` is the interface, `settings` what can be set, `make` gives the oracle of some settings; `seq2seq` and `endpoint`
are the two that ask a model, and `recorded` keeps what they answered and gives it again.
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
