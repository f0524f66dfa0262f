"""Play an environment in the terminal, by hand or by its script."""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from archer.commands.observation_text import plain_text
from archer.errors import RunError

VALID_SHOWN = 30
"""So many of the valid actions are shown; a list of hundreds would push the game off the screen."""


def play_person(
    env_id: str,
    *,
    seed: int,
    kwargs: Mapping[str, Any] | None = None,
    ask: Callable[[str], str] | None = None,
    console: Console | None = None,
) -> float | None:
    """One episode played by a person, or by lines piped in; answers the return, or None where the input ended first."""
    from envs import make

    out = console or Console()
    ask = ask or _asker()
    env = make(env_id, **(kwargs or {}))
    try:
        observation, info = env.reset(seed=seed)
        out.print(Text(plain_text(observation)))
        total, turn, over = 0.0, 0, False
        truncated = False
        while not over:
            if info.get("valid_actions"):
                out.print(Text(plain_text(f"you can: {_some(info['valid_actions'])}"), style="dim"))
            try:
                action = ask(f"{turn + 1}/{env.spec.max_turns} > ")
            except EOFError:
                out.print(Text(f"\nleft after {_turns(turn)}; return {total:g}", style="dim"))
                return None
            observation, reward, terminated, truncated, info = env.step(action)
            total, turn, over = total + reward, turn + 1, terminated or truncated
            out.print(Text(plain_text(observation)))
            out.print(Text(f"reward {reward:g}", style="dim"))
        out.print(Text(_ending(total, turn, info.get("success"), truncated), style="bold"))
        return total
    finally:
        env.close()


def play_demonstrator(
    env_id: str, *, seed: int, skill: float, kwargs: Mapping[str, Any] | None = None, console: Console | None = None
) -> float:
    """One scripted episode, printed turn by turn; answers the return."""
    from envs import demonstrate

    out = console or Console()
    demonstration = next(iter(demonstrate(env_id, episodes=1, skill=skill, seed=seed, **(kwargs or {}))), None)
    if demonstration is None:
        raise RunError(f"the demonstrator of {env_id} wrote no episode for seed {seed}")
    out.print(Text(plain_text(demonstration.observations[0])))
    for turn, action in enumerate(demonstration.actions):
        out.print(Text(plain_text(f"{turn + 1} > {action}"), style="cyan"))
        out.print(Text(plain_text(demonstration.observations[turn + 1])))
        out.print(Text(f"reward {demonstration.rewards[turn]:g}", style="dim"))
    total = sum(demonstration.rewards)
    out.print(
        Text(_ending(total, len(demonstration.actions), demonstration.success, demonstration.truncated), style="bold")
    )
    return total


def _ending(total: float, turns: int, success: bool | None, truncated: bool) -> str:
    word = {True: "solved", False: "not solved", None: "over"}[success]
    limit = ", out of turns" if truncated else ""
    return f"{word} in {_turns(turns)}{limit}; return {total:g}"


def _turns(count: int) -> str:
    return f"{count} turn" if count == 1 else f"{count} turns"


def _some(actions: Sequence[str]) -> str:
    more = len(actions) - VALID_SHOWN
    return ", ".join(actions[:VALID_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _asker() -> Callable[[str], str]:
    """`input`, with what a terminal and a pipe each need."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are an action like any other
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  arrow keys and history, by being loaded
        return input

    def echo(prompt: str) -> str:
        action = input(prompt)
        print(plain_text(action))  # a pipe shows nothing of what goes in
        return action

    return echo
