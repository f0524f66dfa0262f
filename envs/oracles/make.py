"""`make_oracle`: returns the oracle for given settings, made once per process so that environments share it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from envs.oracles.base import Enquiry, Oracle, TableOracle
from envs.oracles.endpoint import EndpointOracle
from envs.oracles.recorded import Recorded
from envs.oracles.seq2seq import Seq2SeqOracle
from envs.oracles.settings import EndpointSettings, OracleSettings, TableSettings, read_settings

_made: dict[OracleSettings, Oracle] = {}
_lock = threading.Lock()


def make_oracle(env_id: str, oracle: Mapping[str, Any] | None, *, table: Callable[[Enquiry], str]) -> Oracle:
    """Return the oracle that the argument `oracle` of an environment describes. The table oracle answers with `table`.

    Raises EnvArgumentError for wrong settings, and OracleError if recorded answers cannot be read.
    """
    settings = read_settings(env_id, oracle)
    if isinstance(settings, TableSettings):
        return TableOracle(table)
    with _lock:
        if settings not in _made:
            asked: Oracle = (
                EndpointOracle(settings) if isinstance(settings, EndpointSettings) else Seq2SeqOracle(settings)
            )
            if settings.record is not None:
                asked = Recorded(asked, Path(settings.record).expanduser(), replay=settings.replay)
            _made[settings] = asked
        return _made[settings]
