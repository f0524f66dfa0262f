"""Play an environment in the terminal, by hand or by its script."""

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from archer.errors import RunError
from archer.text import plain_text


def play_person(
    env_id: str, *, seed: int, ask: Callable[[str], str] = input, console: Console | None = None
) -> float | None:
    """One episode played by a person; answers the return, or None where they left (end of input)."""
    from envs import make

    out = console or Console()
    env = make(env_id)
    try:
        observation, info = env.reset(seed=seed)
        out.print(Text(plain_text(observation)))
        total, turn, over = 0.0, 0, False
        truncated = False
        while not over:
            if info.get("valid_actions"):
                out.print(Text("you can: " + ", ".join(info["valid_actions"]), style="dim"))
            try:
                action = ask(f"{turn + 1}/{env.spec.max_turns} > ")
            except EOFError:
                out.print(Text(f"\nleft after {turn} turns", style="dim"))
                return None
            observation, reward, terminated, truncated, info = env.step(action)
            total, turn, over = total + reward, turn + 1, terminated or truncated
            out.print(Text(plain_text(observation)))
            out.print(Text(f"reward {reward:g}", style="dim"))
        out.print(Text(_ending(total, turn, info.get("success"), truncated), style="bold"))
        return total
    finally:
        env.close()


def play_demonstrator(env_id: str, *, seed: int, skill: float, console: Console | None = None) -> float:
    """One scripted episode, printed turn by turn; answers the return."""
    from envs import demonstrate

    out = console or Console()
    demonstration = next(iter(demonstrate(env_id, episodes=1, skill=skill, seed=seed)), None)
    if demonstration is None:
        raise RunError(f"the demonstrator of {env_id} wrote no episode for seed {seed}")
    out.print(Text(plain_text(demonstration.observations[0])))
    for turn, action in enumerate(demonstration.actions):
        out.print(Text(f"{turn + 1} > {action.rstrip()}", style="cyan"))
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
    return f"{word} in {turns} turns{limit}; return {total:g}"
