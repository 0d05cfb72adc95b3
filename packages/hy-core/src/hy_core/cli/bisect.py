"""hy plugins bisect: find the plugin at fault by running a command with ever fewer of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import click

from hy_core import options
from hy_core.cli import output
from hy_core.errors import HyError, PluginError, UsageError
from hy_core.plugins import Plugins, installed


@click.command("bisect")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def bisect(arguments: tuple[str, ...]) -> None:
    """Find the plugin that makes a command fail, by running it with ever fewer of them.

    \b
    $ hy plugins bisect -- generate "a red circle" -p one -p two -p three
    """
    from hy_core.cli.generate import command as generate
    from hy_core.cli.select import mentioned

    plugins, words = installed(), spelt_out(arguments)
    named = [value for flag, value in zip(words, words[1:], strict=False) if flag == "-p"]
    own = {flag for one in generate.params for flag in (*one.opts, *one.secondary_opts)}
    selected = mentioned(words, named, plugins.found, own)
    if not selected:
        raise UsageError("the command selects no plugins", "put it after --, with its -p options")

    with tempfile.TemporaryDirectory(prefix="hy-bisect-") as folder:

        def fails(names: Sequence[str]) -> bool:
            line = without(words, set(selected) - set(names), plugins)
            run = [sys.executable, "-P", "-m", "hy_core", *line]  # -P: no modules of the current folder
            done = subprocess.run(
                run, env=os.environ | {"HY_OUTPUT": folder}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            if done.returncode == 130:
                raise KeyboardInterrupt
            last = done.stderr.decode(errors="replace").strip().splitlines()
            errors = [text for text in last if text.startswith("Error:")]
            verdict = output.one_line((errors or last or ["failed"])[-1]) if done.returncode else "works"
            output.note(f"{', '.join(names) or 'no plugins'}: {verdict}")
            return done.returncode != 0

        if not fails(selected):
            output.note("the command works: there is nothing to find")
            return
        if fails([]):
            raise HyError("the command fails without plugins too", "it isn't one of them")
        for name in culprits(selected, fails):
            click.echo(name)


def culprits(names: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """The smallest set found of `names` that fails, given that all of them do and none don't.

    Halves while one half fails alone; what is left after that fails only together, less what can be left out.
    """
    left = list(names)
    while len(left) > 1:
        middle = len(left) // 2
        half = next((half for half in (left[:middle], left[middle:]) if fails(half)), None)
        if half is None:
            break
        left = half
    if len(left) > 2:
        for name in list(left):
            fewer = [other for other in left if other != name]
            left = fewer if fails(fewer) else left
    return left


def spelt_out(arguments: Sequence[str]) -> list[str]:
    """A command line that names each plugin as `-p NAME`."""
    found: list[str] = []
    for word in arguments:
        for flag in ("--plugin=", "-p"):
            if word.startswith(flag) and word != flag:
                found += ["-p", word.removeprefix(flag)]
                break
        else:
            found.append("-p" if word == "--plugin" else word)
    return found


def without(arguments: Sequence[str], names: set[str], plugins: Plugins) -> list[str]:
    """A command line, spelt out, without some plugins: neither their `-p` nor their options."""
    sizes = {spelling: size for name in names for spelling, size in flags_of(name, plugins).items()}
    prefixes = tuple(f"--{name}-".replace("_", "-") for name in names)
    left: list[str] = []
    at = 0
    while at < len(arguments):
        word, equals, _ = arguments[at].partition("=")
        following = list(arguments[at + 1 : at + 2])
        if word == "-p":
            drop, size = following[:1] != [] and following[0] in names, 1
        else:
            drop = word in sizes or word.startswith(prefixes)
            guess = int(
                bool(following) and not following[0].startswith("-")
            )  # of a plugin that can't be loaded
            size = sizes.get(word, guess) if drop and not equals else 0
        if not drop:
            left += arguments[at : at + 1 + size]
        at += 1 + size
    return left


def flags_of(name: str, plugins: Plugins) -> dict[str, int]:
    """The flags of a plugin, each with the number of its values; none if it can't be loaded."""
    try:
        kinds = plugins.conditioners([name])
    except PluginError:
        return {}
    found = [one for key, kind in kinds.items() for one in options.click_options(key, kind.Options)]
    return {
        spelling: 0 if one.is_flag else one.nargs
        for one in found
        for spelling in (*one.opts, *one.secondary_opts)
        if spelling.startswith("-")
    }
