"""Returns of every environment by random play and by its demonstrator, the best possible return, and published figures.

The table is written into docs/environments.md between two markers (not with --quick). Random play is the demonstrator
at skill 0. An environment without a demonstrator, or whose package is not installed, is left out with a message.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import envs
from bench.env_tasks import add_arguments, shown, tasks

SKILLS = (0.0, 0.2, 0.5, 1.0)
BEGIN, END = "<!-- made by bench/env_returns.py: begin -->", "<!-- made by bench/env_returns.py: end -->"
DOCS = Path(__file__).resolve().parents[1] / "docs" / "environments.md"

SCRIPT_IS_BEST = ("guess_my_city", "key_door", "maze", "text_nav")
"""Environments whose demonstrator is optimal at skill 1: it knows the map, or needs one question to identify
the city.
"""
PUBLISHED = {
    "guess_my_city": "BC -17.0, MC -11.2, PPO -15.1",
    "maze": "ILQL -6.97",
    "twenty_questions": "BC -16.0, MC -13.9, PPO -14.9, GPT-4 -13.0",
    "wordle": "MC -2.16, ILQL -2.04",
}
"""Raw returns of LMRL-Gym (Abdulhai et al. 2023)."""


def main() -> None:
    arguments = _arguments()
    rows = []
    for spec, kwargs in tasks(arguments):
        row = measure(spec, kwargs, arguments)
        if row is not None:
            rows.append(row)
    columns = {"env": "environment", **{f"skill {skill:g}": _heading(skill) for skill in SKILLS}}
    columns |= {"best": "best possible", "published": "published", "episodes": "episodes"}
    print_table("mean return", columns, rows)
    message = f"results in {report('env_returns', arguments, rows)}"
    if not arguments.quick and not arguments.envs:
        write_table(arguments.docs, rows)
        message += f", table in {arguments.docs}"
    print(message)


def measure(spec: envs.EnvSpec, kwargs: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Return a row of the table; None, with a message, if the environment has no demonstrator."""
    episodes = arguments.episodes or (20 if arguments.quick else 500)
    if spec.isolation == "process":  # a turn in a child process takes a hundred times as long
        episodes = max(2, episodes // 25)
    try:
        measured = envs.returns_by_skill(spec.id, SKILLS, episodes=episodes, seed=arguments.seed, **kwargs)
    except envs.EnvError as error:
        say(f"{spec.id}: left out: {error}")
        return None
    say(f"{spec.id}: {episodes} episodes at each skill")
    row: dict[str, Any] = {"env": spec.id, "arguments": shown(kwargs), "episodes": episodes}
    for one in measured:
        row[f"skill {one.skill:g}"] = f"{one.mean:.2f} ± {one.margin:.2f}"
        row |= {f"mean {one.skill:g}": one.mean, f"margin {one.skill:g}": one.margin}
        row[f"success {one.skill:g}"] = one.success_rate
    row["best"] = best(spec, measured[-1].mean)
    row["published"] = PUBLISHED.get(spec.id, "")
    return row


def best(spec: envs.EnvSpec, script: float) -> str:
    """Return the best mean return, or an upper bound ("at most")."""
    if spec.id in SCRIPT_IS_BEST:
        return f"{script:.2f}"
    if spec.id in ("twenty_questions", "twenty_questions_subset"):
        words = len(envs.unwrapped(envs.make(spec.id)).words)  # type: ignore[attr-defined]
        return f"at most {-halving_cost(words) / words:.2f}"
    if spec.id == "wordle":
        words = len(envs.unwrapped(envs.make(spec.id)).words)  # type: ignore[attr-defined]
        return f"at most {-guessing_cost(words, 3**5 - 5) / words:.2f}"
    return f"at most {spec.reward_range[1]:g}"


@cache
def halving_cost(words: int) -> int:
    """Return the least total cost, summed over all words, if every question could split the words arbitrarily.

    A question about an attribute costs one for each word and leaves two parts. A guess costs one for each word except
    the guessed one.
    """
    if words <= 1:
        return 0
    guess = words - 1 + halving_cost(words - 1)
    half = words // 2
    return min(guess, words + halving_cost(half) + halving_cost(words - half))


def guessing_cost(words: int, feedbacks: int) -> int:
    """Return the same for guesses only, each answered in one of `feedbacks` ways, of which one ends the game."""
    cost, left, width = 0, words, 1
    while left > 0:
        found = min(left, width)
        left -= found
        cost += left
        width *= feedbacks - 1
    return cost


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows between the markers of the page."""
    headings = ["environment", *(_heading(skill) for skill in SKILLS), "best possible", "published"]
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        name = f"`{row['env']}`" + (f" ({row['arguments']})" if row["arguments"] else "")
        lines.append(_line([name, *(row[f"skill {skill:g}"] for skill in SKILLS), row["best"], row["published"]]))
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{path} needs the lines {BEGIN} and {END} once each, to mark the place of the table")
    table = "\n".join([BEGIN, "", *lines, "", END])
    path.write_text(
        re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table, text, flags=re.S), encoding="utf-8"
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(skill: float) -> str:
    return "random" if skill == 0 else f"skill {skill:g}"


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    add_arguments(made)
    made.add_argument("--episodes", type=int, help="per skill; 500 by default, a 25th of that in child processes")
    made.add_argument("--docs", type=Path, default=DOCS, help="Markdown file with the two markers")
    return made.parse_args()


if __name__ == "__main__":
    main()
