"""`archer eval`: a trained policy, a run's or any other, plays episodes on an engine of its own."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from archer.config import RunConfig
from archer.errors import ConfigError
from archer.evaluate import FIRST_HELD_OUT_SEED, EvalResult
from archer.loading import config_from_tree, load_config
from archer.runfolder import latest_checkpoint


@dataclass(frozen=True)
class Policy:
    """What is to be evaluated: a name for tables, the model's folder or hub name, and the settings to play with."""

    name: str
    model: str
    config: RunConfig


def choose_policy(run_or_model: str, *, env: str | None, overrides: Sequence[str] = ()) -> Policy:
    """A run's newest checkpoint with the run's settings, or a model with the default ones. Raises ConfigError."""
    path = Path(run_or_model).expanduser()
    if (path / "config.yaml").is_file():
        return _of_run(path, env, overrides)
    if env is None:
        raise ConfigError(f"{run_or_model!r} is a model, not a run, so archer eval needs --env ID (see `archer envs`)")
    tree = {"name": "eval", "model": {"path": run_or_model}, "env": {"id": env}}
    config = config_from_tree(tree, overrides, source="the arguments of archer eval")
    return Policy(path.name, str(path) if path.is_dir() else run_or_model, config)


def _of_run(path: Path, env: str | None, overrides: Sequence[str]) -> Policy:
    checkpoint = latest_checkpoint(path)
    if checkpoint is None:
        raise ConfigError(
            f"the run {path} has no checkpoint yet, so there is no policy to evaluate; wait for its first"
        )
    config = load_config(path / "config.yaml", overrides)
    if env is not None and env != config.env.id:
        # The arguments of the run's own environment mean nothing to another.
        config = load_config(path / "config.yaml", [f"env={{id: {env!r}}}", *overrides])
    return Policy(path.resolve().name, str(checkpoint / "policy"), config)


def play_policy(policy: Policy, *, episodes: int, greedy: bool = False, seed: int | None = None) -> EvalResult:
    """Start Ray and the policy's engines, play `episodes` on seeds from `seed` on (held-out ones by default), end both.

    Raises the rollout room's errors.
    """
    from actors.pool import WorkerArgs, start_pool  # late: brings Ray and vLLM
    from archer.cluster import cluster
    from archer.model import resolve_model
    from learner.config import LearnerConfig

    config = policy.config.model_copy(
        update={"learner": LearnerConfig()}
    )  # an evaluation reserves for one rank at most
    resolve_model(config.model.model_copy(update={"path": policy.model, "build": None}))
    with ExitStack() as stack:
        stack.enter_context(cluster(config))
        arguments = WorkerArgs(
            config=config.rollout,
            model=policy.model,
            env_id=config.env.id,
            env_kwargs=config.env.kwargs,
            replay=None,
            run=f"eval-{policy.name}",
            seed=config.seed,
            version=0,
        )
        pool = start_pool(arguments)
        stack.callback(pool.shutdown)
        report = pool.collect(
            episodes,
            first_seed=FIRST_HELD_OUT_SEED if seed is None else seed,
            store=False,
            greedy=greedy,
            timeout_s=policy.config.learner.timeout_s,
        )
    return EvalResult.from_report(report, name=policy.name, env=config.env.id, greedy=greedy)


def print_results(results: Sequence[EvalResult], console: Console | None = None) -> None:
    """One line per evaluated policy."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("policy", "environment"):
        table.add_column(column, no_wrap=True)
    for column in ("episodes", "return", "95%", "success", "turns", "invalid", "tokens/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.name + (" (greedy)" if result.greedy else ""),
            result.env,
            str(result.episodes),
            f"{result.return_mean:.2f}",
            f"{result.return_low:.2f} to {result.return_high:.2f}",
            "" if result.success_rate is None else f"{result.success_rate:.0%}",
            f"{result.mean_turns:.1f}",
            f"{result.invalid_share:.1%}",
            f"{result.tokens_per_second:,.0f}",
        )
    out = console or Console()
    if not out.is_terminal:
        out.width = max(out.width, 200)  # a file has no edge; a line that is cut there can't be read back
    out.print(table)
