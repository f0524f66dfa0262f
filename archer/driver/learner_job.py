"""The learner's ranks as Ray Train runs them, in a process that the driver can give up.

Ray Train waits for its ranks in native code. In the driver's main thread it would take over Ctrl-C and end the process
with status 0; in another of its threads that wait would still be under way when an interrupted driver leaves the
cluster, and Ray crashes on that (SIGSEGV).
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from archer.driver.board import BoardFollower
from archer.driver.remote_errors import sentence_of
from archer.errors import RunError
from buffer.node_affinity import this_node
from learner.config import LearnerConfig
from learner.entry import TrainArgs, run_rank


def train(
    name: str, learner: LearnerConfig, args: TrainArgs, folder: Path, follower: BoardFollower, api_server: str
) -> None:
    """Run the training function on its ranks to the end; `api_server` is what `archer.cluster.cluster` gave.

    Raises RunError with the sentence of the first rank that failed, and what `follower` raises where it ended early.
    """
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": this_node()}
    remote = ray.remote(**options, runtime_env=environment(api_server))(_fit)
    fitting = remote.remote(name, learner, args, folder)
    fitted = fitting.future()
    try:
        wait([fitted, follower.done], return_when=FIRST_COMPLETED)
        follower.check()
        failure = fitted.result()
    except ray.exceptions.WorkerCrashedError as error:
        raise RunError("the process that watches the learner's ranks died; look for why in Ray's logs") from error
    finally:
        if not fitted.done():
            ray.cancel(fitting, force=True)
    if failure is not None:
        sentence, whole = failure
        report = folder / "error.log"
        report.write_text(whole)
        raise RunError(f"{sentence} (the whole traceback: {report})")


def environment(api_server: str) -> dict[str, dict[str, str]]:
    """Of the processes that Ray Train starts."""
    return {
        "env_vars": {
            # Ray Train asks Ray's API server whether its own controller lives, and ends the ranks where that knows of
            # no such actor. Left to find a server it may ask another cluster's on this machine.
            "RAY_API_SERVER_ADDRESS": api_server,
            # One process less: a run that is pre-empted resumes from its checkpoint like any other.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        }
    }


def _fit(name: str, learner: LearnerConfig, args: TrainArgs, folder: Path) -> tuple[str, str] | None:
    """None, or the sentence and the whole text of what failed."""
    trainer = TorchTrainer(
        run_rank,
        train_loop_config={"args": args},
        torch_config=TorchConfig(backend="nccl" if learner.use_gpu else "gloo", timeout_s=int(learner.timeout_s) * 2),
        scaling_config=ray.train.ScalingConfig(
            num_workers=learner.ranks,
            use_gpu=learner.use_gpu,
            resources_per_worker={"CPU": learner.cpus_per_rank} | ({"GPU": 1} if learner.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(name=name, storage_path=str(folder / "ray_train")),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        return sentence_of(error), str(error)
    return None
