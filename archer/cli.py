"""The `archer` command: registers the commands of `archer.commands` and maps errors to exit statuses.

The modules of the commands import torch, Ray, vLLM and pydantic inside their functions, so that `--help` is fast.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup

from archer import signals
from archer.commands.check import check
from archer.commands.evaluate import evaluate
from archer.commands.export import export
from archer.commands.import_episodes import import_episodes
from archer.commands.list_envs import list_envs
from archer.commands.plan import plan
from archer.commands.play import play
from archer.commands.record import record
from archer.commands.report import report
from archer.commands.serve_env import serve_env
from archer.commands.serve_replay import serve_replay
from archer.commands.show_config import show_config
from archer.commands.top import top
from archer.commands.train import demo, train
from archer.commands.view import view
from archer.errors import ArcherError, Interrupted, room_errors
from archer.shadowed_packages import check_shadowing


class _Group(TyperGroup):
    """A group that reports a signal; Typer would end the command without a message."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted", signals.exit_status()) from None


app = typer.Typer(
    cls=_Group,
    name="archer",
    help="Train language-model agents over many turns with ArCHer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(train)
app.command()(check)
app.command()(plan)
app.command("eval")(evaluate)
app.command()(record)
app.command("import")(import_episodes)
app.command()(export)
app.command()(play)
app.command()(report)
app.command()(top)
app.command()(view)
app.command("config")(show_config)

envs_app = typer.Typer(cls=_Group, invoke_without_command=True)
envs_app.callback()(list_envs)
envs_app.command("serve")(serve_env)
app.add_typer(envs_app, name="envs")

replay_app = typer.Typer(cls=_Group, no_args_is_help=True, help="Serve stored episodes to other programs.")
replay_app.command("serve")(serve_replay)
app.add_typer(replay_app, name="replay")


def main() -> None:
    """Run the command. Print an error of ours as one sentence and exit with 2 (bad input) or 1 (failed run)."""
    signals.install()
    _print_anything()
    try:
        check_shadowing()
        app()
    except room_errors() as error:
        _fail(str(error), error.exit_status if isinstance(error, ArcherError) else 1)
    except KeyboardInterrupt:  # a signal before the command began
        _fail("interrupted", signals.exit_status())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"no space left on the disk{f' of {error.filename}' if error.filename else ''}; free some", 1)
        if not isinstance(error, BrokenPipeError):
            raise
        # The reader of the pipe (`| head`) closed it. Without this, Python reports the error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _print_anything() -> None:
    """Replace characters that the terminal's encoding lacks, instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _fail(message: str, status: int) -> None:
    with suppress(OSError, ValueError):  # standard output may be a file on a full disk, or closed
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        print(f"archer: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
