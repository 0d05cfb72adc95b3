"""The `hy` command: commands load when they run, and every error is one line with a hint."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

import click

from hy_core.cli.lazy import LazyGroup
from hy_core.errors import HyError

COMMANDS = {
    "generate": ("hy_core.cli.generate:command", "Make a video from a prompt."),
    "rewrite": ("hy_core.cli.rewrite:command", "Put a prompt into the words that a model was trained on."),
    "inspect": ("hy_core.cli.inspect:command", "Tell how a clip was made, and the command to make it again."),
    "models": ("hy_core.cli.models:command", "List, inspect, convert and fetch weights."),
    "plugins": ("hy_core.cli.plugins:command", "List, show, write and install plugins."),
    "config": ("hy_core.cli.config:command", "Show, write and check settings."),
    "doctor": ("hy_core.cli.doctor:command", "Is this machine ready?"),
}


def version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print the version of hy-core and stop."""
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version as of

        click.echo(f"hy {of('hy-core')}")
        context.exit()


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    entry_points="hy.commands",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=version, help="Show the version."
)
def cli() -> None:
    """Make videos from text, pictures and sound. hy COMMAND --help tells more.

    \b
    $ hy generate "a blue square spins on a grey floor" --seed 3 -o square.gif
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (docs/reference/errors.md)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupted)
    sys.unraisablehook = unraisable
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal doesn't have
    code = run(arguments)
    sys.exit(flushed() or code)


def flushed() -> int:
    """Write out what stdout still holds; the exit code if that fails, else 0."""
    if sys.stdout is None:
        return 0
    try:
        sys.stdout.flush()
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end
        if isinstance(error, BrokenPipeError):  # `hy … | head`: the reader has stopped
            return 0
        from hy_core.cli import output

        return output.report(HyError(f"stdout: {error.strerror}"))


def interrupted(number: int, frame: Any) -> None:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that no partial file stays."""
    _signals.append(number)
    raise KeyboardInterrupt


def unraisable(caught: Any) -> None:
    """Interrupt again where Python dropped the interrupt, which it does inside destructors and callbacks of C code."""
    if isinstance(caught.exc_value, KeyboardInterrupt) and _signals and hasattr(signal, "pthread_kill"):
        import threading

        # Later, as the signal would interrupt this function if it came at once.
        again = threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident or 0, _signals[-1]))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(caught)


_signals: list[int] = []
"""Signals that came: libraries turn the interrupt that one raises inside them into errors of their own."""


def run(arguments: list[str] | None = None) -> int:
    """The exit code of one command line; errors are printed on stderr."""
    from hy_core.cli import output

    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        if not output.has_current_folder():  # torch can't even be imported then
            raise HyError("the current folder doesn't exist any more", "go to another one")
        return cli.main(args=arguments, prog_name="hy", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as nothing:
        click.echo(nothing.format_message())
        return 0
    except (click.Abort, KeyboardInterrupt):
        output.note("interrupted; no partial file was kept")
        return 130
    except BrokenPipeError:
        return 1
    except (Exception, RecursionError) as error:
        if _signals:
            output.note("interrupted; no partial file was kept")
            return 130
        if debug or os.environ.get("HY_DEBUG", "") not in ("", "0"):
            import traceback

            traceback.print_exc()
        return output.report(error)


__all__ = ["HyError", "cli", "main", "run"]
