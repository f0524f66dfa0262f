"""Measure the action tokens per second of a rollout worker against `LLM.generate` on the same prompts.

For each number of concurrent episodes, the program measures three contenders, alternating over the repeats:

- `episodes`: the worker (a Ray actor with its own engine) plays episodes and appends them to replay shards;
- `requests`: the same engine answers the prompts of these episodes as single requests, with as many in flight as there
  were episodes. All prompts are known in advance: there is no environment and no dependence between turns;
- `generate`: `LLM.generate` of the same vLLM with the same arguments, prompts and number of tokens per prompt, in one
  call, with as many concurrent sequences as there were episodes.

The difference between `generate` and `requests` is the cost of vLLM's asynchronous front end (one request per action,
a second process). The difference between `requests` and `episodes` is the cost of sequential turns, environment,
renderer and replay. A second table splits the time of the worker's event-loop thread.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import cloned_model, local_cluster, medians, parser, print_table, report, say  # isort: skip - sets the threads first

import numpy as np
import psutil  # type: ignore[import-untyped]
import ray

import envs
from actors.config import EngineConfig, SamplingConfig
from actors.engine.launch import EXTENSION, engine_arguments, set_environment
from actors.rollout.player import WorkerArgs
from actors.rollout.worker import RolloutWorker
from archer.config.loading import load_config
from archer.config.models import RunConfig
from buffer.episodes.schema import Episode
from buffer.service import ReplayService

T = TypeVar("T")
CALL_TIMEOUT_S = 900.0

# Concurrent episodes to total episodes. The total is large, because fewer episodes are in flight at the end.
FULL = {1: 12, 16: 96, 64: 320, 256: 1024}
QUICK = {1: 4, 16: 48}

COLUMNS = {
    "at_once": "concurrent episodes",
    "episodes_tokens_per_second": "episodes, tok/s",
    "requests_tokens_per_second": "requests, tok/s",
    "generate_tokens_per_second": "generate, tok/s",
    "ratio": "episodes / generate",
    "requests_ratio": "requests / generate",
    "episodes_ratio": "episodes / requests",
}
SPLIT = {
    "at_once": "concurrent episodes",
    "environment": "environment",
    "renderer": "renderer",
    "front_end": "vLLM front end, asyncio",
    "idle": "waiting for the engine",
    "engine_process": "engine process busy",
    "append": "append (own thread)",
}


@dataclass
class Prompts:
    """The state of every turn of some episodes, and the number of tokens sampled there; ordered by turn."""

    tokens: list[list[int]]
    lengths: list[int]

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> Prompts:
        turns = [(t, e) for e in episodes for t in range(e.turns)]
        turns.sort(key=lambda pair: pair[0])
        return cls(
            tokens=[e.tokens[: e.action_start[t]].tolist() for t, e in turns],
            lengths=[int(e.action_end[t] - e.action_start[t]) for t, e in turns],
        )


class Stopwatch:
    """Accumulates seconds by name."""

    def __init__(self) -> None:
        self.seconds = {"environment": 0.0, "renderer": 0.0, "append": 0.0}

    def timed(self, name: str, call: Callable[..., T]) -> Callable[..., T]:
        def run(*args: Any, **kwargs: Any) -> T:
            begin = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - begin

        return run


class Timed:
    """A proxy of an object that measures some of its methods."""

    def __init__(self, inner: Any, watch: Stopwatch, name: str, methods: Sequence[str]) -> None:
        self._inner = inner
        for method in methods:
            setattr(self, method, watch.timed(name, getattr(inner, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class MeasuredWorker(RolloutWorker):
    """The rollout worker, with a stopwatch around its calls, and a list of the episodes that it appends."""

    def __init__(self, args: WorkerArgs, name: str, seed: int) -> None:
        self._watch = Stopwatch()
        self._played: list[Episode] = []
        replay: Any = Timed(args.replay, self._watch, "append", ("append",))
        super().__init__(replace(args, replay=replay), name, seed)

    async def bring_up(self) -> None:
        await self.start()
        self._renderer = Timed(self._renderer, self._watch, "renderer", ("start", "extend", "read_action"))

    async def _append_all(self, episodes: list[Episode]) -> list[None]:
        self._played += episodes
        return await super()._append_all(episodes)

    def _make_env(self) -> envs.AsyncEnv:
        # Inline environments run on the event loop, so the duration of the call is the time they take there.
        env = envs.make(self._args.env_id, **self._args.env_kwargs)
        timed: Any = Timed(env, self._watch, "environment", ("reset", "step"))
        return envs.AsyncEnv(timed, timeout_s=self._args.config.env_timeout_s)

    async def episodes(self, first_seed: int, count: int, at_once: int) -> tuple[dict[str, float], Prompts]:
        """Play `count` episodes, `at_once` concurrently; return the rate and split of wall time, and the prompts."""
        self._played.clear()
        self._watch.seconds = dict.fromkeys(self._watch.seconds, 0.0)
        engine = self._engine_seconds()
        wall, own = time.perf_counter(), time.thread_time()
        seeds = range(first_seed, first_seed + count)
        results = await in_flight(at_once, [partial(self.play, seed, False, True) for seed in seeds])
        wall, own = time.perf_counter() - wall, time.thread_time() - own
        spent = self._watch.seconds
        split = {
            **spent,
            "front_end": own - spent["environment"] - spent["renderer"],
            "idle": wall - own,
            "engine_process": self._engine_seconds() - engine,
        }
        figures = {name: seconds / wall for name, seconds in split.items()}
        tokens = sum(result.action_tokens for result in results)
        return {"tokens_per_second": tokens / wall, **figures}, Prompts.of(self._played)

    async def requests(self, prompts: Prompts, at_once: int) -> float:
        """Return the tokens per second of single requests with known prompts."""
        sampling = self._args.config.sampling
        begin = time.perf_counter()
        answers = await in_flight(at_once, [partial(self._engine.generate, p, 1, sampling) for p in prompts.tokens])
        return sum(len(answer.tokens) for answer in answers) / (time.perf_counter() - begin)

    def _engine_seconds(self) -> float:
        children = psutil.Process().children(recursive=True)
        return sum(sum(child.cpu_times()[:2]) for child in children)


async def in_flight(at_once: int, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of all `calls`, of which `at_once` run concurrently."""
    waiting = iter(calls)
    results: list[Any] = []

    async def run() -> None:
        for call in waiting:
            results.append(await call())

    await asyncio.gather(*(run() for _ in range(at_once)))
    return results


class Generate:
    """`LLM.generate` with the worker's own engine arguments."""

    def __init__(self, model: str, config: EngineConfig, at_once: int, seed: int) -> None:
        set_environment(config)
        from vllm import LLM

        self._llm = LLM(**{**engine_arguments(model, config, seed, EXTENSION), "max_num_seqs": at_once})

    def generate(self, prompts: Prompts, sampling: SamplingConfig) -> float:
        """Return the tokens per second; each prompt gets as many tokens as the worker sampled there."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                max_tokens=length,
                logprobs=0,
                flat_logprobs=True,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for length in prompts.lengths
        ]
        inputs = [TokensPrompt(prompt_token_ids=tokens) for tokens in prompts.tokens]
        self._llm.reset_prefix_cache()
        begin = time.perf_counter()
        outputs = self._llm.generate(inputs, parameters, use_tqdm=False)
        seconds = time.perf_counter() - begin
        return sum(len(o.outputs[0].token_ids) for o in outputs) / seconds


def measure(config: RunConfig, model: str, at_once: int, count: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Return one row: the medians over `repeats` of the three contenders."""
    replay = ReplayService.start(config.replay, directory=folder / f"replay-{at_once}", seed=config.seed)
    args = WorkerArgs(
        config=config.rollout, model=model, env_id=config.env.id, replay=replay.client(), run=f"bench-{at_once}"
    )
    worker = ray.remote(num_cpus=1)(MeasuredWorker).remote(args, "bench", config.seed)
    baseline = ray.remote(num_cpus=1)(Generate).remote(model, config.rollout.engine, at_once, config.seed)
    ask(worker.bring_up.remote())
    _, warm = ask(worker.episodes.remote(10**6, min(count, 2 * at_once), at_once))
    ask(baseline.generate.remote(warm, config.rollout.sampling))
    runs = []
    for repeat in range(repeats):
        figures, prompts = ask(worker.episodes.remote(repeat * count, count, at_once))
        figures = {("episodes_tokens_per_second" if k == "tokens_per_second" else k): v for k, v in figures.items()}
        figures["requests_tokens_per_second"] = ask(worker.requests.remote(prompts, at_once))
        figures["generate_tokens_per_second"] = ask(baseline.generate.remote(prompts, config.rollout.sampling))
        figures["ratio"] = figures["episodes_tokens_per_second"] / figures["generate_tokens_per_second"]
        figures["requests_ratio"] = figures["requests_tokens_per_second"] / figures["generate_tokens_per_second"]
        figures["episodes_ratio"] = figures["episodes_tokens_per_second"] / figures["requests_tokens_per_second"]
        figures["tokens_per_turn"] = float(np.mean(prompts.lengths))
        figures["prompt_tokens_mean"] = float(np.mean([len(p) for p in prompts.tokens]))
        runs.append(figures)
        say(f"  {at_once} concurrent, {repeat + 1}/{repeats}: {figures['ratio']:.2f} of LLM.generate")
    ray.kill(worker)
    ray.kill(baseline)
    replay.stop()
    return {"at_once": at_once, "episodes": count, **medians(runs), "runs": runs}


def ask(reference: Any) -> Any:
    """Return an actor's answer. Raises GetTimeoutError."""
    return ray.get(reference, timeout=CALL_TIMEOUT_S)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", default="demo", help="preset or YAML file with environment, sampling and engine")
    options.add_argument("--model", help="model folder; the default is the preset's model after a short cloning")
    options.add_argument("--repeats", type=int, help="number of repeats; the table shows medians")
    arguments = options.parse_args()
    sizes = QUICK if arguments.quick else FULL
    repeats = arguments.repeats or (1 if arguments.quick else 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = load_config(arguments.config, [f"seed={arguments.seed}"])
        model = arguments.model
        if model is None:
            say("cloning a small model")
            model = str(cloned_model(config, folder / "model", steps=30 if arguments.quick else 150, seed=config.seed))
        with local_cluster(num_cpus=4):
            rows = [measure(config, model, at_once, count, repeats, folder) for at_once, count in sizes.items()]
    print_table("Action tokens per second", COLUMNS, rows)
    print_table("Split of the worker's wall time while it plays (fractions)", SPLIT, rows)
    say(f"wrote {report('rollout', arguments, rows, config=arguments.config, repeats=repeats)}")


if __name__ == "__main__":
    main()
