"""The learner's ranks under Ray Train, in a process that the driver can abandon.

Ray Train waits for its ranks in native code. In the driver's main thread this wait would take over Ctrl-C and end the
process with status 0. In another thread of the driver the wait would still run when an interrupted driver leaves the
cluster, and Ray would crash (SIGSEGV).
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray

from actors.errors import PoolUnreachable
from archer.config.models import RunConfig
from archer.driver.board import BoardFollower
from archer.errors import RunError
from archer.shadowed_packages import ROOMS
from buffer.atomic_files import write_atomic
from buffer.node_affinity import this_node
from learner.engine.checkpoint_folders import checkpoint_folders, cycle_of
from learner.entry import run_rank
from learner.train_args import TrainArgs

if TYPE_CHECKING:
    from ray.train import TrainingFailedError


def train(config: RunConfig, args: TrainArgs, follower: BoardFollower, api_server: str) -> None:
    """Run the training function on its ranks until it ends. `api_server` is the URL that `cluster` yields.

    If a rank dies, the ranks restart from the newest checkpoint, up to `learner.restarts` times. Ray Train could
    restart them itself (FailureConfig.max_failures), but it would do so after every error, for example a loss that is
    not finite.

    Raises RunError with the message of the first failed rank, or the error of `follower` if the follower ends first.
    """
    while (failure := _fit_once(config, args, follower, api_server)) is not None:
        if not failure.is_death or args.restarts == config.learner.restarts:
            raise RunError(_reported(failure, args))
        args = _continued(args)
        cycle = 0 if args.resume is None else cycle_of(args.resume)
        event = {"kind": "restart", "cycle": cycle, "restarts": args.restarts, "reason": failure.message}
        args.board.publish({**event, "limit": config.learner.restarts})


def _fit_once(config: RunConfig, args: TrainArgs, follower: BoardFollower, api_server: str) -> Failure | None:
    """Return None when the ranks have ended in order, or why they have not."""
    fit = ray.remote(
        num_cpus=0,
        max_retries=0,
        scheduling_strategy=this_node(),
        runtime_env=environment(api_server, config.cluster.start_timeout_s),
    )(_fit)
    fitting = fit.remote(config.name, args)
    fitted = fitting.future()
    try:
        wait([fitted, follower.done], return_when=FIRST_COMPLETED)
        follower.check()
        failure: Failure | None = fitted.result()
    except ray.exceptions.OutOfMemoryError as error:
        message = "Ray ended the process that watches the learner's ranks, because the machine ran out of memory"
        return Failure(message, str(error), is_death=True)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.RayActorError) as error:
        message = "the process that watches the learner's ranks died; Ray's logs say why"
        return Failure(message, str(error), is_death=True)
    finally:
        if not fitted.done():
            ray.cancel(fitting, force=True)
    return failure


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


def environment(api_server: str, start_timeout_s: float) -> dict[str, dict[str, str]]:
    """Return the runtime environment of the processes that Ray Train starts."""
    return {
        "env_vars": {
            # Ray Train asks Ray's API server whether its own controller is alive, and ends the ranks if the server does
            # not know the controller. Without this variable it may ask the server of another cluster on this machine.
            "RAY_API_SERVER_ADDRESS": api_server,
            # Saves a process: a run that is pre-empted resumes from its checkpoint like any other.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(start_timeout_s),
        }
    }


def _fit(name: str, args: TrainArgs) -> Failure | None:
    """Return None, or the failure that ended the ranks."""
    # Late: the driver, which sends this function, needs none of it.
    import ray.train

    from archer.driver.rank_trainer import ProcessGroup, RankTrainer

    learner = args.learner
    trainer = RankTrainer(
        run_rank,
        train_loop_config={"args": args},
        backend_config=ProcessGroup("nccl" if learner.use_gpu else "gloo", timeout_s=int(learner.timeout_s) * 2),
        scaling_config=ray.train.ScalingConfig(
            num_workers=learner.ranks,
            use_gpu=learner.use_gpu,
            resources_per_worker={"CPU": learner.cpus_per_rank, **learner.resources}
            | ({"GPU": 1} if learner.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(args.run_dir / "ray_train"),
            # By default the controller retries the start without limit.
            failure_config=ray.train.FailureConfig(controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        return failure_of(error)
    return None


@dataclass(frozen=True)
class Failure:
    """Why the ranks ended.

    is_death: a process has ended, which may not happen again; an error that a rank raised would.
    """

    message: str
    traceback: str
    is_death: bool = False


def failure_of(error: TrainingFailedError) -> Failure:
    """Return the first failed rank with the message of the error that it raised, or what kept the ranks from starting.

    Ray wraps an error of another process in several layers, each with a traceback in its text. The innermost cause has
    the message that its room wrote. Ranks that lose a peer raise errors of their collectives, which say less.
    """
    failures = getattr(error, "worker_failures", None) or {}
    causes = {rank: _innermost(failures[rank]) for rank in sorted(failures)}
    dead = [rank for rank, cause in causes.items() if isinstance(cause, _DEATHS)]
    if dead:
        ranks = ", ".join(map(str, dead))
        named = f"learner rank {ranks}" if len(dead) == 1 else f"learner ranks {ranks}"
        memory = any(isinstance(causes[rank], ray.exceptions.OutOfMemoryError) for rank in dead)
        return Failure(f"{named} died{', because the machine ran out of memory' * memory}", str(error), is_death=True)
    own = {rank: cause for rank, cause in causes.items() if not _lost_peer(cause)}
    if causes and not own:
        rank = min(causes)
        lost = "the pool" if isinstance(causes[rank], PoolUnreachable) else "another rank"
        return Failure(f"learner rank {rank} lost {lost}: {_text(causes[rank])}", str(error), is_death=True)
    if own:
        rank = min(own)
        return Failure(f"learner rank {rank} failed: {_text(own[rank])}", str(error))
    cause = getattr(error, "controller_failure", error)
    if type(cause).__name__ == "WorkerGroupStartupTimeoutError":
        return Failure(
            f"the Ray cluster had no room for the {cause.num_workers} ranks of the learner within "
            "cluster.start_timeout_s; free some of its resources, or lower learner.ranks or learner.cpus_per_rank",
            str(error),
        )
    if type(cause).__name__ == "WorkerGroupStartupFailedError":  # Ray Train raises it when an actor dies
        return Failure("a learner rank died while it started", str(error), is_death=True)
    return Failure(f"the learner could not start: {_text(_innermost(cause))}", str(error))


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
        layers = (getattr(error, name, None) for name in ("cause", "_base_exc", "health_check_failure", "__cause__"))
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
