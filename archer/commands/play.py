"""`archer play`: play an environment in the terminal, or watch its scripted player."""

import io
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from archer.commands.arguments import EnvId, EnvOverrides, Seed, Skill, env_kwargs
from archer.commands.terminal import plain_text

VALID_SHOWN = 30
"""Valid actions printed at each turn; a list of hundreds would scroll the game off the screen."""


def play(
    env: EnvId,
    seed: Seed = 0,
    demonstrator: Annotated[bool, typer.Option("--demonstrator", help="Watch the scripted player instead.")] = False,
    skill: Skill = 1.0,
    overrides: EnvOverrides = None,
) -> None:
    """Play an environment in the terminal, or watch its scripted player."""
    kwargs = env_kwargs(env, overrides)
    if demonstrator:
        play_demonstrator(env, seed=seed, skill=skill, kwargs=kwargs)
    else:
        play_person(env, seed=seed, kwargs=kwargs)


def play_person(
    env_id: str,
    *,
    seed: int,
    kwargs: Mapping[str, Any] | None = None,
    ask: Callable[[str], str] | None = None,
    console: Console | None = None,
) -> float | None:
    """Play one episode with actions from `ask`; return its return, or None if the input ended first."""
    from envs import make

    out = console or Console()
    ask = ask or _asker()
    with closing(make(env_id, **(kwargs or {}))) as env:
        observation, info = env.reset(seed=seed)
        out.print(Text(plain_text(observation)))
        total, turn, over, truncated = 0.0, 0, False, False
        while not over:
            if actions := info.get("valid_actions"):
                more = len(actions) - VALID_SHOWN
                known = ", ".join(actions[:VALID_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
                out.print(Text(plain_text(f"you can: {known}"), style="dim"))
            try:
                action = ask(f"{turn + 1}/{env.spec.max_turns} > ")
            except EOFError:
                out.print(Text(f"\nleft after {_turns(turn)}; return {total:g}", style="dim"))
                return None
            observation, reward, terminated, truncated, info = env.step(action)
            total, turn, over = total + reward, turn + 1, terminated or truncated
            _print_outcome(out, observation, reward)
        _print_ending(out, total, turn, info.get("success"), truncated)
        return total


def play_demonstrator(
    env_id: str, *, seed: int, skill: float, kwargs: Mapping[str, Any] | None = None, console: Console | None = None
) -> float:
    """Print one scripted episode turn by turn; return its return."""
    from envs import demonstrate

    out = console or Console()
    (demonstration,) = demonstrate(env_id, episodes=1, skill=skill, seed=seed, **(kwargs or {}))
    out.print(Text(plain_text(demonstration.observations[0])))
    for turn, action in enumerate(demonstration.actions):
        out.print(Text(plain_text(f"{turn + 1} > {action}"), style="cyan"))
        _print_outcome(out, demonstration.observations[turn + 1], demonstration.rewards[turn])
    _print_ending(out, demonstration.ret, len(demonstration.actions), demonstration.success, demonstration.truncated)
    return demonstration.ret


def _print_outcome(out: Console, observation: Any, reward: float) -> None:
    out.print(Text(plain_text(observation)))
    out.print(Text(f"reward {reward:g}", style="dim"))


def _print_ending(out: Console, total: float, turns: int, success: bool | None, truncated: bool) -> None:
    word = {True: "solved", False: "not solved", None: "over"}[success]
    limit = ", out of turns" if truncated else ""
    out.print(Text(f"{word} in {_turns(turns)}{limit}; return {total:g}", style="bold"))


def _turns(count: int) -> str:
    return f"{count} turn" if count == 1 else f"{count} turns"


def _asker() -> Callable[[str], str]:
    """Return `input`, set up for a terminal or for a pipe."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # Bytes that are not UTF-8 are an action like any other.
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  importing it gives `input` arrow keys and history
        return input

    def echo(prompt: str) -> str:
        action = input(prompt)
        print(plain_text(action))  # A pipe does not show its input.
        return action

    return echo
