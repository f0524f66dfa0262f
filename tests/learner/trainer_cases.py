"""The real trainer in one process, with engines and a replay that only hold and record."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from learner_cases import flat_actions, make_row

from buffer.episodes.schema import Episode
from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer
from learner.config import LearnerConfig
from learner.feeding.demonstrations import write_demonstrations
from learner.session import Session
from learner.stages import begin
from learner.train import Trainer
from learner.train_args import TrainArgs


def played(seed: int) -> Episode:
    """Return the episode of an environment seed."""
    return replace(make_row(seed, all_turns=True, turns=4).episode, seed=seed)


class OneEngine:
    """The client of one engine, which takes weights at once. A subclass says what follows from `install_weights`."""

    names, incarnations, elsewhere = ("engine",), ("engine.0",), ()
    version = 0

    def sync_client(self) -> Any:
        return self

    def init_weight_transfer_engine(self, info: dict[str, Any]) -> None: ...

    def stage_weights(self, updates: list[dict[str, Any]]) -> Any:
        return lambda: None


class Rollouts(OneEngine):
    """Engines that return the same episodes for the same seeds and pass every proof."""

    stale_error = died_error = KeyError

    def __init__(self, replay: Memory) -> None:
        self.sent: list[str] = []
        self.admitted: list[int] = []
        self.replay = replay
        self.session: Any = None
        self._next_seed = 0

    def ready(self, timeout_s: float) -> None:
        pass

    def window(self) -> int:
        return 256

    def install_weights(self, updates: list[dict[str, Any]]) -> None:
        for info in updates:
            self.sent.append("base" if info.get("keep") else "adapter" if "scale" in info else "all")

    def probe(self, tokens: np.ndarray, positions: np.ndarray) -> list[ProbeAnswer]:
        logprobs = self.session.broadcaster.logprobs_fn(tokens)[positions - 1]
        return [ProbeAnswer("engine", self.version, logprobs)]

    def collect(self, episodes: int, *, first_seed: int, store: bool = True, **_: Any) -> CollectReport:
        found = [played(first_seed % 1000 + i) for i in range(episodes)]
        if store:
            self.replay.held = found
        zeros = np.zeros(episodes, dtype=np.float32)
        return CollectReport(
            returns=np.array([episode.ret for episode in found], dtype=np.float32),
            successes=zeros,
            turns=np.full(episodes, 4),
            invalid_actions=zeros,
            versions=zeros + self.version,
            seeds=np.arange(episodes) + first_seed,
            tokens=np.ones(episodes, np.int32),
            seconds=1.0,
            window_truncations=0,
            lost=0,
            next_seed=first_seed + episodes,
        )

    def start(self, *, first_seed: int, **_: Any) -> None:
        self._next_seed = first_seed

    def report(self, *, at_least: int, timeout_s: float) -> CollectReport:
        report = self.collect(at_least, first_seed=self._next_seed)
        self._next_seed = report.next_seed
        return report

    def admit(self, episodes: int) -> None:
        self.admitted.append(episodes)

    def stop(self) -> None:
        pass

    def request(self, prompts: list[np.ndarray], n: np.ndarray, *, logprobs: bool) -> Future[FreshActions]:
        answer: Future[FreshActions] = Future()
        answer.set_result(flat_actions([[[1 + k % 3, 2]] for count in n for k in range(count)], -4.0))
        return answer


class Memory:
    """A replay that holds a list of episodes, and records the requests it gets."""

    def __init__(self, held: list[Episode] | None = None) -> None:
        self.held = held or []
        self.requests: list[Any] = []

    def sample(self, request: Any, *, timeout_s: float | None = None) -> Any:
        self.requests.append(request)
        return SimpleNamespace(
            episodes=[self.held[i % len(self.held)] for i in range(request.n)], turns=np.full(request.n, -1)
        )

    def sweep(
        self, *, view: str, min_version: int, timeout_s: float | None = None, counted: bool = True
    ) -> list[Episode]:
        self.requests.append(SimpleNamespace(view=view, min_version=min_version))
        return list(self.held)

    def stats(self) -> Any:
        turns = sum(episode.turns for episode in self.held)
        return SimpleNamespace(episodes=len(self.held), turns=turns, inserted_episodes=len(self.held))

    def checkpoint(self, directory: Path) -> None:
        directory.mkdir()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def make_args(
    run: Path, model: Path, algorithm: str, learner: LearnerConfig | dict[str, Any], **changes: Any
) -> tuple[TrainArgs, list[dict[str, Any]]]:
    """Return arguments of a run of two cycles with four episodes each, and the list of its events."""
    run.mkdir(exist_ok=True)
    demonstrations = run / "demonstrations.arrow"
    write_demonstrations([played(i) for i in range(8)], demonstrations)
    replay: Any = changes.pop("replay", None) or Memory()
    rollouts: Any = Rollouts(replay)
    events: list[dict[str, Any]] = []
    board: Any = SimpleNamespace(publish=events.append)
    config = learner if isinstance(learner, LearnerConfig) else LearnerConfig.model_validate(learner)
    arguments = TrainArgs(
        algorithm=algorithm,
        learner=config,
        run_dir=run,
        model=str(changes["resume"] / "policy" if changes.get("resume") else model),
        start_model=str(model),
        seed=0,
        mode="sync",
        cycles=2,
        offline_cycles=0,
        episodes_per_cycle=4,
        max_staleness=0,
        evaluation_episodes=0,
        evaluation_every=0,
        evaluation_greedy=False,
        checkpoint_every=1,
        checkpoint_keep=9,
        temperature=1.0,
        replay=replay,
        rollouts=rollouts,
        board=board,
        demonstrations=demonstrations,
    )
    return replace(arguments, **changes), events


def make_session(args: TrainArgs) -> Session:
    """Return the session of a run, with which the engines prove broadcasts."""
    session = Session(args)
    rollouts: Any = args.rollouts
    rollouts.session, rollouts.version = session, session.state.version
    return session


def make_trainer(args: TrainArgs) -> Trainer:
    """Return the trainer before its first cycle, or the first one after the resume."""
    torch.manual_seed(0)
    session = make_session(args)
    return Trainer(session, begin(session))


def train(args: TrainArgs) -> list[str]:
    """Run all cycles; return the kinds of weights that the engines received, in order."""
    make_trainer(args).run()
    rollouts: Any = args.rollouts
    return rollouts.sent


def cycles(events: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the metrics of each cycle."""
    return [event["metrics"] for event in events if event["kind"] == "cycle"]
