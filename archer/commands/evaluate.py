"""`archer eval`: play the same held-out episodes with one or more policies and compare the results."""

import itertools
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from archer.commands.output_folder import claimed
from archer.commands.terminal import plain_console


def evaluate(
    policies: Annotated[
        list[str], typer.Argument(metavar="RUN_OR_MODEL", help="Run folders, model folders or Hugging Face names.")
    ],
    env: Annotated[str | None, typer.Option(help="Environment id; by default that of the runs.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes that each policy plays.")] = 256,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Sample from the policy (the default); add --greedy to do both.")
    ] = False,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most likely token instead of sampling.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="First environment seed; by default one that training never uses.")
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="Play the newest checkpoint of each run, not its best evaluated policy.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder for results and plot; by default one in evals/.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting to change; may be repeated.")
    ] = None,
) -> None:
    """Play the same held-out episodes with one or more policies; compare return and success rate."""
    from archer.results.comparison import Comparison, print_comparison
    from archer.results.plots import returns_plot
    from archer.results.policies import check_models, choose_policies
    from archer.results.statistics import Decoding
    from learner.seeds import EVALUATION_SEED

    decodings: list[Decoding] = ["sampled", "greedy"] if sampled and greedy else ["greedy" if greedy else "sampled"]
    chosen = choose_policies(policies, env=env, overrides=overrides or [], last=last)
    check_models(chosen)
    from archer.results.evaluation import play_policies  # imports Ray: a mistake above is reported sooner

    comparison = Comparison(
        chosen,
        episodes=episodes,
        decodings=decodings,
        first_seed=EVALUATION_SEED if seed is None else seed,
    )
    progress = plain_console(stderr=True)
    with claimed(out or _new_folder(comparison.env.id), keep_partial=True) as folder:
        record = folder / "evaluation.json"
        try:
            for evaluation in play_policies(chosen, comparison, progress):
                comparison.evaluations.append(evaluation)
                comparison.write(record)
        finally:
            if comparison.evaluations and not comparison.complete:
                progress.print(f"the completed results are in {record}")
    plot = returns_plot([e.result for e in comparison.evaluations], folder / "returns.png", title=comparison.title)
    print_comparison(comparison)
    plain_console().print(f"plot {plot}, results and episodes {record}")


def _new_folder(env: str) -> Path:
    """Return a path in evals/ that does not exist yet."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9._-]+', '-', env)}"
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(folder for suffix in suffixes if not (folder := Path("evals") / (name + suffix)).exists())
