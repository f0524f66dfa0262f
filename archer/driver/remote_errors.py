"""What went wrong in another process, as the sentence that its room wrote."""

from __future__ import annotations

import ray
import ray.train
from ray.train import TrainingFailedError


def sentence_of(error: TrainingFailedError) -> str:
    """The first failed rank and the message of the error that it raised.

    Ray wraps an error of another process in several layers, each with a traceback in its text; the sentence is that
    of the innermost cause.
    """
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return f"the learner could not be run: {_innermost(getattr(error, 'controller_failure', error))}"
    rank = min(failures)
    return f"learner rank {rank} failed: {_innermost(failures[rank])}"


def _innermost(error: BaseException) -> str:
    while True:
        inner = getattr(error, "cause", None) or getattr(error, "_base_exc", None) or error.__cause__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    text = str(error).strip()
    if isinstance(error, ray.exceptions.RayTaskError):
        # Its text is a traceback whose last line is the error itself.
        text = text.splitlines()[-1]
    name = type(error).__name__
    return text if type(error).__module__.split(".")[0] in _ROOMS else f"{name}: {text}"


_ROOMS = ("actors", "archer", "buffer", "envs", "learner")
