"""The learner's ranks under Ray Train, in a process that the driver can abandon.

Ray Train waits for its ranks in native code. In the driver's main thread this wait would take over Ctrl-C and end the
process with status 0. In another thread of the driver the wait would still run when an interrupted driver leaves the
cluster, and Ray would crash (SIGSEGV).
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress

import ray
import ray.train
from ray.train import FailureConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from archer.config.models import RunConfig
from archer.driver.board import BoardFollower
from archer.errors import RunError
from archer.shadowed_packages import ROOMS
from buffer.atomic_files import write_atomic
from buffer.node_affinity import this_node
from learner.entry import run_rank
from learner.train_args import TrainArgs


def train(config: RunConfig, args: TrainArgs, follower: BoardFollower, api_server: str) -> None:
    """Run the training function on its ranks until it ends. `api_server` is the URL that `cluster` yields.

    Raises RunError with the message of the first failed rank, or the error of `follower` if the follower ends first.
    """
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
        failure = fitted.result()
    except ray.exceptions.OutOfMemoryError as error:
        raise RunError(
            "Ray ended the process that watches the learner's ranks, because the machine ran out of memory; free some "
            "memory, then continue with `archer train --resume`"
        ) from error
    except ray.exceptions.WorkerCrashedError as error:
        raise RunError("the process that watches the learner's ranks died; Ray's logs say why") from error
    finally:
        if not fitted.done():
            ray.cancel(fitting, force=True)
    if failure is None:
        return
    message, traceback = failure
    report = args.run_dir / "error.log"
    with suppress(OSError):  # a full disk must not hide the message
        write_atomic(report, traceback)
        message += f" (full traceback: {report})"
    raise RunError(message)


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


def _fit(name: str, args: TrainArgs) -> tuple[str, str] | None:
    """Return None, or the message and the full text of the failure."""
    learner = args.learner
    trainer = TorchTrainer(
        run_rank,
        train_loop_config={"args": args},
        torch_config=TorchConfig(backend="nccl" if learner.use_gpu else "gloo", timeout_s=int(learner.timeout_s) * 2),
        scaling_config=ray.train.ScalingConfig(
            num_workers=learner.ranks,
            use_gpu=learner.use_gpu,
            resources_per_worker={"CPU": learner.cpus_per_rank} | ({"GPU": 1} if learner.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(args.run_dir / "ray_train"),
            failure_config=FailureConfig(controller_failure_limit=0),  # by default it retries the start without limit
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return failure_message(error), str(error)
    return None


def failure_message(error: TrainingFailedError) -> str:
    """Return the first failed rank with the message of the error that it raised, or what kept the ranks from starting.

    Ray wraps an error of another process in several layers, each with a traceback in its text. The innermost cause has
    the message that its room wrote.
    """
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank = min(failures)
        return f"learner rank {rank} failed: {_innermost(failures[rank])}"
    cause = getattr(error, "controller_failure", error)
    if type(cause).__name__ == "WorkerGroupStartupTimeoutError":
        return (
            f"the Ray cluster had no room for the {cause.num_workers} ranks of the learner within "
            "cluster.start_timeout_s; free some of its resources, or lower learner.ranks or learner.cpus_per_rank"
        )
    return f"the learner could not start: {_innermost(cause)}"


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
    kind = type(error)
    return text if kind.__module__.split(".")[0] in ROOMS else f"{kind.__name__}: {text}"
