"""The command line `archer`. Heavy imports (torch, Ray, vLLM) stand inside the commands that need them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from archer.errors import ArcherError, ConfigError, Interrupted, room_errors
from archer.shadowed_packages import check_shadowing

if TYPE_CHECKING:
    from archer.config.models import RunConfig
    from archer.driver.run_folder import RunFolder


class _Group(TyperGroup):
    """Typer would end a command on Ctrl-C without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


app = typer.Typer(
    cls=_Group,
    name="archer",
    help="Train language-model agents over many turns with ArCHer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as learner.critic.lr=1e-4."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run of the same name first.")]


@app.command()
def demo(overrides: Overrides = None) -> None:
    """Train a small model from scratch on Twenty Questions, in minutes on two cores. Replaces an earlier demo."""
    _train("demo", overrides or [], overwrite=True)


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(help="YAML file, or the name of a preset.")] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with the run in this folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a policy, or go on with a run that was interrupted."""
    if resume is None:
        if config is None:
            raise ConfigError("archer train needs a configuration (archer train CONFIG) or --resume runs/NAME")
        _train(config, overrides or [], overwrite=overwrite)
        return
    if overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: one keeps the run, the other deletes it")
    _resume(resume, ([config] if config else []) + (overrides or []))


@app.command("eval")
def evaluate(
    policies: Annotated[
        list[str],
        typer.Argument(metavar="RUN_OR_MODEL...", help="Run folders, model folders or Hugging Face names."),
    ],
    env: Annotated[str | None, typer.Option(help="Environment id; the runs' own by default.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes that each policy plays.")] = 256,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Sample from the policy: the default, and with --greedy both.")
    ] = False,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token instead of sampling.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed; held out from training by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder for plot and figures; one in evals/ by default.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be given again.")
    ] = None,
) -> None:
    """Play the same held-out episodes with one policy or several, and compare return and success rate."""
    from archer.commands.evaluate import evaluate_policies

    asked = {"sampled": sampled or not greedy, "greedy": greedy}
    evaluate_policies(
        policies,
        env=env,
        episodes=episodes,
        decodings=[decoding for decoding in ("sampled", "greedy") if asked[decoding]],
        seed=seed,
        out=out,
        overrides=overrides or [],
    )


SetKwargs = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="env.kwargs.NAME=VALUE", help="An argument of the environment; may be given again."),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--model", help="Model folder or Hugging Face name whose tokenizer to write in; without it one is made."
    ),
]


@app.command()
def demos(
    env: Annotated[str, typer.Argument(help="Environment id; `archer envs` lists them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the episodes.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 100,
    skill: Annotated[float, typer.Option(min=0.0, max=1.0, help="Skill of the script, random to best.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Environment seed of the first episode.")] = 0,
    model: Tokenizer = None,
    overrides: SetKwargs = None,
) -> None:
    """Let an environment's script play, and write its episodes in the replay schema (`demonstrations.files`)."""
    from archer.commands.record import write_demos

    write_demos(env, episodes=episodes, skill=skill, seed=seed, out=out, model=model, overrides=overrides or [])


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What to read.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the episodes.")],
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="How it is written: lmrl, arrow, parquet or run; told by the path."
        ),
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Environment id of the episodes in it, where they do not say it.")
    ] = None,
    model: Tokenizer = None,
    overrides: SetKwargs = None,
) -> None:
    """Turn episodes that others wrote into the replay schema, and say what was left out and why."""
    from archer.commands.import_episodes import import_episodes

    import_episodes(file, format_name=format_name, env=env, out=out, model=model, overrides=overrides or [])


@app.command("export")
def export_(
    source: Annotated[Path, typer.Argument(help="A run's folder, a checkpoint, a replay, or a file of episodes.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="New folder for episodes.parquet.")],
) -> None:
    """Write the episodes of a run's replay as Parquet, also while it runs."""
    from archer.commands.replay import export_episodes

    export_episodes(source, to=to)


@app.command()
def play(
    env: Annotated[str, typer.Argument(help="Environment id; `archer envs` lists them.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episode.")] = 0,
    demonstrator: Annotated[bool, typer.Option("--demonstrator", help="Watch the script play instead.")] = False,
    skill: Annotated[float, typer.Option(min=0.0, max=1.0, help="Skill of the script, random to best.")] = 1.0,
    overrides: SetKwargs = None,
) -> None:
    """Play an environment in the terminal, or watch its demonstrator."""
    from archer.commands.env_arguments import env_kwargs
    from archer.commands.play import play_demonstrator, play_person

    kwargs = env_kwargs(env, overrides or [])
    if demonstrator:
        play_demonstrator(env, seed=seed, skill=skill, kwargs=kwargs)
    else:
        play_person(env, seed=seed, kwargs=kwargs)


@app.command()
def config(
    preset: Annotated[str | None, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a preset.")] = None,
    overrides: Overrides = None,
    fields: Annotated[bool, typer.Option("--fields", help="List every field with its default and meaning.")] = False,
) -> None:
    """Check a configuration and print it in full."""
    from archer.config.loading import dump_config, load_config, presets

    if fields:
        from archer.config.listing import print_fields

        print_fields()
        return
    if preset is None:
        raise ConfigError(f"archer config needs a file or a preset: {', '.join(presets()) or 'none found'}")
    typer.echo(dump_config(load_config(preset, overrides or [])), nl=False)


envs_app = typer.Typer(cls=_Group, invoke_without_command=True)
app.add_typer(envs_app, name="envs")


@envs_app.callback()
def envs(context: typer.Context) -> None:
    """List the environments; `archer envs serve` serves one to others."""
    if context.invoked_subcommand is None:
        from archer.config.listing import print_envs

        print_envs()


@envs_app.command("serve")
def envs_serve(
    env: Annotated[str, typer.Argument(help="Environment id; `archer envs` lists them.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions at once; one more is refused.")] = 64,
    max_message: Annotated[int, typer.Option(min=1, metavar="KB", help="Longest message taken, in kB.")] = 4096,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An argument of the environment; may be given again."),
    ] = None,
) -> None:
    """Serve an environment by OpenEnv's protocol, over WebSocket and HTTP, until Ctrl-C."""
    from archer.commands.serve_env import serve_env

    serve_env(
        env, host=host, port=port, sessions=sessions, max_message_bytes=max_message * 1000, settings=settings or []
    )


replay_app = typer.Typer(cls=_Group, no_args_is_help=True, help="Episodes at rest, open to others.")
app.add_typer(replay_app, name="replay")


@replay_app.command("serve")
def replay_serve(
    source: Annotated[Path, typer.Argument(help="A run's folder, a checkpoint, a replay, or a file of episodes.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 0,
    token: Annotated[str | None, typer.Option(help="What every request must carry; made up if not given.")] = None,
) -> None:
    """Serve the episodes of a folder over Arrow Flight, with the token that it prints, until Ctrl-C."""
    from archer.commands.replay import serve_replay

    serve_replay(source, host=host, port=port, token=token)


def _train(config: str, overrides: list[str], *, overwrite: bool) -> None:
    from archer.config.loading import load_config
    from archer.driver.run_folder import RunFolder

    resolved = load_config(config, overrides)
    with RunFolder.create(Path(resolved.runs_dir), resolved.name, overwrite=overwrite) as folder:
        _run(resolved, folder, resume=False)


def _resume(path: Path, overrides: list[str]) -> None:
    from archer.config.loading import load_config
    from archer.driver.run_folder import RunFolder

    with RunFolder.open(path) as folder:
        _run(load_config(folder.config_path, overrides), folder, resume=True)


def _run(config: "RunConfig", folder: "RunFolder", *, resume: bool) -> None:
    from archer.config.loading import dump_config

    folder.write_config(dump_config(config))
    try:
        from archer.run import run  # late: brings torch and Ray

        run(config, folder, resume=resume)
    except KeyboardInterrupt:
        checkpoint = folder.latest_checkpoint()
        start = checkpoint.name if checkpoint else "the beginning: it has no checkpoint yet"
        raise Interrupted(f"interrupted; `archer train --resume {folder.path}` goes on from {start}") from None


def main() -> None:
    """Entry point: our errors become one sentence on stderr and an exit status (2 bad input, 1 failed run)."""
    try:
        check_shadowing()
        app()
    except room_errors() as error:
        _fail(str(error), error.exit_status if isinstance(error, ArcherError) else 1)
    except KeyboardInterrupt:  # before a command had begun
        _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) went away; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, status: int) -> None:
    sys.stdout.flush()
    print(f"archer: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
