"""Steps and resets per second and memory of every environment, each in its own process on one core.

The program replays episodes that a demonstrator recorded beforehand (skill 0.5; without a demonstrator, the valid
actions in turn), so neither demonstrator nor policy is timed. Rates of environments on the event loop or a thread are
per second of processor time, which does not depend on the load of the machine. Rates of child processes are per second
of wall time. Memory is the increase of the process's memory by the first and by each further environment. For an
environment that wraps a package, `own` is the rate of that package's own loop with the same actions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import psutil  # type: ignore[import-untyped]

import envs
from bench.env_tasks import add_arguments, shown, tasks
from bench.own_loops import OWN

REPEATS = 3
SCRIPT, SEARCHES = "script", "searches"
FURTHER: dict[str, list[tuple[dict[str, Any], str]]] = {
    "webshop": [({"items": 10_000}, SCRIPT), ({"items": 10_000}, SEARCHES)],
}
"""Further rows of an environment: arguments, and which actions are timed."""
START_TIMEOUT_S, MEASURE_TIMEOUT_S = 120, 600
COLUMNS = {
    "env": "environment",
    "arguments": "arguments",
    "played": "played",
    "isolation": "isolation",
    "steps": "steps/s",
    "resets": "resets/s",
    "own": "own steps/s",
    "first_mib": "first, MiB",
    "next_kib": "next, KiB",
    "turns": "turns timed",
}


def main() -> None:
    arguments = _arguments()
    rows = []
    for spec, kwargs in tasks(arguments):
        for more, played in [({}, SCRIPT), *FURTHER.get(spec.id, [])]:
            row = _measure_apart(spec.id, kwargs | more, played, arguments)
            if row is not None:
                rows.append(row)
                say(f"{row['env']}: {row['steps']:,.0f} steps/s")
    print_table("environments, one core", COLUMNS, rows)
    print(f"results in {report('envs', arguments, rows)}")


def _measure_apart(
    env_id: str, kwargs: dict[str, Any], played: str, arguments: argparse.Namespace
) -> dict[str, Any] | None:
    """Run `measure` in a new process, whose memory contains no earlier environment. Return None, with a message, on
    failure.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    turns = arguments.turns or (2_000 if arguments.quick else 20_000)
    process = context.Process(target=_child, args=(theirs, env_id, kwargs, played, turns, arguments.seed))
    process.start()
    theirs.close()
    try:
        text = ours.recv() if ours.poll(START_TIMEOUT_S + MEASURE_TIMEOUT_S) else ""
    except EOFError:
        text = ""
    process.join(START_TIMEOUT_S)
    if process.is_alive():
        process.kill()
    if not text:
        say(f"{env_id}: left out: the process sent no result (exit status {process.exitcode})")
        return None
    row = json.loads(text)
    if "error" in row:
        say(f"{env_id}: left out: {row['error']}")
        return None
    return dict(row)


def _child(connection: Any, env_id: str, kwargs: dict[str, Any], played: str, turns: int, seed: int) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    try:
        row = measure(env_id, kwargs, played, turns, seed)
    except envs.EnvError as error:
        row = {"error": str(error)}
    connection.send(json.dumps(row))


def measure(env_id: str, kwargs: dict[str, Any], played: str, turns: int, seed: int) -> dict[str, Any]:
    """Return a row: medians of `REPEATS` passes over episodes of `turns` turns in all (a 20th in a child process)."""
    spec = envs.spec(env_id)
    apart = spec.isolation == "process"
    clock = time.perf_counter if apart else time.process_time
    before = _memory()
    env = envs.make(env_id, **kwargs)
    env.reset(seed=seed)
    first = _memory() - before
    further = [envs.make(env_id, **kwargs) for _ in range(2 if apart else 16)]
    for one in further:
        one.reset(seed=seed)
    after = _memory()
    for one in further:
        one.close()
    count = turns // 20 if apart else turns
    episodes = searches(env, count, seed) if played == SEARCHES else record(env, kwargs, count, seed)
    what = "search[" if played == SEARCHES else ""
    passes = [timed(env, episodes, clock, what) for _ in range(REPEATS)]
    env.close()
    own = OWN[env_id](kwargs, episodes, clock) if env_id in OWN else None
    return {
        "env": env_id,
        "arguments": shown(kwargs),
        "played": played,
        "isolation": spec.isolation,
        "clock": "wall" if apart else "processor",
        "steps": statistics.median(steps for steps, _ in passes),
        "resets": statistics.median(resets for _, resets in passes),
        "own": own or "",
        "first_mib": first / 2**20,
        "next_kib": (after - before - first) / len(further) / 2**10,
        "turns": sum(action.startswith(what) for _, actions in episodes for action in actions),
        "episodes": len(episodes),
    }


def record(env: envs.TextEnv, kwargs: dict[str, Any], turns: int, seed: int) -> list[tuple[int, list[str]]]:
    """Return seeds and actions of whole episodes that have at least `turns` turns in all."""
    found: list[tuple[int, list[str]]] = []
    count = 0
    own = {
        name: value for name, value in kwargs.items() if name != "max_turns"
    }  # an argument of the time limit, not of the environment
    try:
        player = envs.make_demonstrator(env.spec.id, skill=0.5, **own)
    except envs.EnvError:
        player = None
    while count < turns:
        number = seed + len(found)
        observation, info = env.reset(seed=number)
        if player is not None:
            player.begin(observation, info, seed=number)
        actions: list[str] = []
        over = False
        while not over:
            valid = info.get(envs.VALID_ACTIONS) or ["0"]
            action = player.act() if player is not None else valid[len(actions) % len(valid)]
            observation, _, terminated, truncated, info = env.step(action)
            if player is not None:
                player.see(action, observation, info)
            actions.append(action)
            over = terminated or truncated
        found.append((number, actions))
        count += len(actions)
    return found


def searches(env: envs.TextEnv, turns: int, seed: int) -> list[tuple[int, list[str]]]:
    """Return episodes of searches for words of the task, with the way back to the search box between them."""
    draw = random.Random(seed)
    found = []
    for number in range(seed, seed + max(1, turns // 10)):
        words = str(env.reset(seed=number)[0]).partition(".")[0].lower().replace(",", "").split()[2:]
        asked = [f"search[{' '.join(draw.sample(words, min(4, len(words))))}]" for _ in range(5)]
        found.append((number, [action for search in asked for action in (search, "click[back to search]")]))
    return found


def timed(
    env: envs.TextEnv, episodes: list[tuple[int, list[str]]], clock: Callable[[], float], what: str = ""
) -> tuple[float, float]:
    """Return steps and resets per second over the episodes. Only actions that begin with `what` count as steps."""
    stepping = resetting = 0.0
    steps = 0
    for seed, actions in episodes:
        start = clock()
        env.reset(seed=seed)
        resetting += clock() - start
        if not what:
            start = clock()
            for action in actions:
                env.step(action)
            stepping += clock() - start
            steps += len(actions)
            continue
        for action in actions:
            start = clock()
            env.step(action)
            if action.startswith(what):
                stepping += clock() - start
                steps += 1
    return steps / max(stepping, 1e-9), len(episodes) / max(resetting, 1e-9)


def _memory() -> int:
    """Return the resident memory of this process and its children, in bytes."""
    me = psutil.Process()
    return sum(int(process.memory_info().rss) for process in (me, *me.children(recursive=True)))


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    add_arguments(made)
    made.add_argument("--turns", type=int, help="turns timed; 20,000 by default, a 20th of that in child processes")
    return made.parse_args()


if __name__ == "__main__":
    main()
