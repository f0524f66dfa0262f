"""The learner's ranks during a run: after a death they restart; an error that one raised ends the run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import ray

from actors.errors import PoolUnreachable
from archer.config.models import RunConfig
from archer.driver.board import BoardFollower
from archer.driver.rank_actors import SilentRankError, run_ranks
from archer.errors import RunError
from archer.shadowed_packages import ROOMS
from buffer.atomic_files import write_atomic
from learner.engine.checkpoint_folders import checkpoint_folders, cycle_of
from learner.train_args import TrainArgs


def train(config: RunConfig, args: TrainArgs, follower: BoardFollower) -> None:
    """Run the training function on its ranks until it ends.

    If a rank dies, the ranks restart from the newest checkpoint, up to `learner.restarts` times. They do not restart
    after an error that a rank raised, for example a loss that is not finite: it would come again.

    Raises RunError with the message of the first failed rank, or the error of `follower` if the follower ends first.
    """
    while (failure := _run_once(config, args, follower)) is not None:
        if not failure.is_death or args.restarts == config.learner.restarts:
            raise RunError(_reported(failure, args))
        args = _continued(args)
        cycle = 0 if args.resume is None else cycle_of(args.resume)
        event = {"kind": "restart", "cycle": cycle, "restarts": args.restarts, "reason": failure.message}
        args.board.publish({**event, "limit": config.learner.restarts})


def _run_once(config: RunConfig, args: TrainArgs, follower: BoardFollower) -> Failure | None:
    """Return None when the ranks have ended in order, or why they have not."""
    try:
        failures = run_ranks(args, follower, config.cluster.start_timeout_s)
    except _DEATHS as error:
        return Failure("a learner rank died while it started; Ray's logs say why", str(error), is_death=True)
    return failure_of(failures) if failures else None


def _continued(args: TrainArgs) -> TrainArgs:
    """Return the arguments of ranks that restart from the newest checkpoint, or from the beginning before the first."""
    found = checkpoint_folders(args.run_dir / "checkpoints")
    if not found:
        return replace(args, restarts=args.restarts + 1)
    return replace(args, restarts=args.restarts + 1, resume=found[-1], model=str(found[-1] / "policy"))


def _reported(failure: Failure, args: TrainArgs) -> str:
    """Write the traceback of a failure to the run folder, and return its message."""
    times = f" (restarted {args.restarts} times, the limit of learner.restarts)" if failure.is_death else ""
    report = args.run_dir / "error.log"
    with suppress(OSError):  # a full disk must not hide the message
        write_atomic(report, failure.traceback)
        times += f" (full traceback: {report})"
    return f"{failure.message}{times}"


@dataclass(frozen=True)
class Failure:
    """Why the ranks ended.

    is_death: a process has ended, which may not happen again; an error that a rank raised would.
    """

    message: str
    traceback: str
    is_death: bool = False


def failure_of(failures: Mapping[int, BaseException]) -> Failure:
    """Return the first failed rank with the message of the error that it raised, given the error of each failed rank.

    Ray wraps an error of another process in several layers, each with a traceback in its text. The innermost cause has
    the message that its room wrote. Ranks that lose a peer raise errors of their collectives, which say less.
    """
    causes = {rank: _innermost(failures[rank]) for rank in sorted(failures)}
    traceback = "\n".join(f"learner rank {rank}:\n{failures[rank]}\n" for rank in causes)
    dead = [rank for rank, cause in causes.items() if isinstance(cause, _DEATHS)]
    if dead:
        ranks = ", ".join(map(str, dead))
        named = f"learner rank {ranks}" if len(dead) == 1 else f"learner ranks {ranks}"
        memory = any(isinstance(causes[rank], ray.exceptions.OutOfMemoryError) for rank in dead)
        return Failure(f"{named} died{', because the machine ran out of memory' * memory}", traceback, is_death=True)
    silent = [cause for cause in causes.values() if isinstance(cause, SilentRankError)]
    if silent:
        return Failure(str(silent[0]), traceback, is_death=True)
    own = {rank: cause for rank, cause in causes.items() if not _lost_peer(cause)}
    rank = min(own or causes)
    if own:
        return Failure(f"learner rank {rank} failed: {_text(own[rank])}", traceback)
    lost = "the pool" if isinstance(causes[rank], PoolUnreachable) else "another rank"
    return Failure(f"learner rank {rank} lost {lost}: {_text(causes[rank])}", traceback, is_death=True)


_DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError)


def _lost_peer(error: BaseException) -> bool:
    """Return whether a rank's error says that the connection to another rank, or to the pool, broke.

    Ranks that restart take over the pool, which then ends what the calls before had begun.
    """
    broken = isinstance(error, PoolUnreachable) or type(error).__name__ == "DistBackendError"
    return broken or "gloo/transport" in str(error)


def _innermost(error: BaseException) -> BaseException:
    """Return the error under Ray's wrappers: the first one of ours, or the last."""
    while not _is_ours(error):
        layers = (getattr(error, name, None) for name in ("cause", "__cause__"))
        inner = next((layer for layer in layers if isinstance(layer, BaseException)), None)
        if inner is None or inner is error:
            break
        error = inner
    return error


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in ROOMS


def _text(error: BaseException) -> str:
    """Return the message of an error, with its type if it is not of ours."""
    text = str(error).strip()
    if isinstance(error, ray.exceptions.RayTaskError):
        # Its text is a traceback whose last line is the error itself.
        text = text.splitlines()[-1]
    return text if _is_ours(error) else f"{type(error).__name__}: {text}"
