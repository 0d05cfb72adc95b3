"""hy plugins: which there are and how they are; show, write, install, and find the one at fault."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import click

from hy_core import hooks, options
from hy_core.cli import output
from hy_core.errors import HyError, MissingError, PluginError, UsageError
from hy_core.plugins import Health, Plugins, installed
from hy_core.registered import NAME

TEMPLATE = Path(__file__).parents[1] / "template"


@click.group("plugins", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List, show, write and install plugins."""
    if context.invoked_subcommand is None:
        context.invoke(listed)


# -- list and info ---------------------------------------------------------------------------------------


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def listed(as_json: bool = False) -> None:
    """List the installed plugins and how they are. A broken one is a row, not a failure."""
    plugins = installed()
    rows = [plugins.examine(name) for name in sorted({**plugins.found, **plugins.off})]
    if as_json:
        click.echo(json.dumps({"api": hooks.API, "plugins": [described(row) for row in rows]}, indent=2))
        return
    if not rows:
        output.note("no plugins are installed; hy plugins install PACKAGE, or hy plugins new NAME")
        return
    table = [("name", "version", "package", "hooks", "ms", "state")]
    for row in rows:
        found = row.found
        counts = (str(len(row.hooks)), f"{row.milliseconds:.0f}")
        table.append((found.name, found.version, found.distribution, *counts, state(row)))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    output.note(f"plugin API {hooks.API}")


def state(row: Health) -> str:
    """The state with its reason in one line."""
    return output.one_line(f"{row.state}: {row.detail}" if row.detail else row.state)


def described(row: Health) -> dict[str, Any]:
    """A plugin as JSON values."""
    found = row.found
    return {
        "name": found.name,
        "version": found.version,
        "package": found.distribution,
        "summary": found.summary,
        "module": found.module,
        "hooks": row.hooks,
        "milliseconds": round(row.milliseconds, 1),
        "state": row.state,
        "detail": row.detail,
        "hint": row.hint,
    }


@command.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout, with the schema of the options.")
def info(name: str, as_json: bool) -> None:
    """Show one plugin: NAME, or the path of a Python file."""
    plugins = installed()
    if name not in plugins.found:
        [name] = plugins.load(name)
    row = plugins.examine(name)
    kinds = dict(plugins.conditioners([name])) if row.state != "broken" else {}
    said = plugins.registered(name) if row.state != "broken" else {}
    if as_json:
        schemas = {key: options.schema(kind.Options) for key, kind in kinds.items()}
        click.echo(json.dumps({**described(row), "registers": said, "options": schemas}, indent=2))
        return
    found = row.found
    click.echo(f"{name} {found.version}".strip() + (f": {found.summary}" if found.summary else ""))
    click.echo(f"  package    {found.distribution}\n  module     {found.module}")
    click.echo(f"  state      {state(row)}\n  loads in   {row.milliseconds:.0f} ms")
    click.echo(f"  hooks      {', '.join(row.hooks)}")
    for hook, names in said.items():
        click.echo(f"  {hook.removeprefix('register_'):<10} {', '.join(names)}")
    context = click.get_current_context()
    for key, kind in kinds.items():
        click.echo(f"  {key}: {(kind.__doc__ or '').strip().partition(chr(10))[0]}")
        for one in options.click_options(key, kind.Options):
            flag, help = one.get_help_record(context) or ("", "")
            click.echo(f"    {flag}\n        {help}")
    if row.state == "broken":
        raise PluginError(row.detail, row.hint)


# -- new -------------------------------------------------------------------------------------------------


@command.command("new")
@click.argument("name")
def new(name: str) -> None:
    """Write the start of a plugin into ./hy-NAME: a module, its packaging, and tests that pass."""
    folder = Path.cwd() / f"hy-{name}"
    refuse(name, folder)
    module = f"hy_{name.replace('-', '_')}"
    words = {
        "name": name,
        "module": module,
        "class": "".join(part.capitalize() for part in name.replace("_", "-").split("-")),
        "flag": options.flag(name, "level"),
    }
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as partial:
        for source in sorted(TEMPLATE.glob("*.in")):
            target = Path(partial, "new", placed(source.stem, module))
            target.parent.mkdir(parents=True, exist_ok=True)
            text = Template(source.read_text(encoding="utf-8")).substitute(words)
            target.write_text(text, encoding="utf-8")
        Path(partial, "new").rename(folder)
    click.echo(folder)
    output.note(f"next: uv pip install --python {shlex.quote(sys.executable)} -e {folder.name}[test]")
    output.note(f"then: pytest {folder.name}; hy generate -p {name} --help")


def refuse(name: str, folder: Path) -> None:
    """Say what is wrong with the name of a new plugin, or with the place for it."""
    if name.startswith(("hy-", "hy_")) and NAME.fullmatch(name[3:]):
        raise UsageError(f"{name!r}: the folder gets its hy- anyway", f"hy plugins new {name[3:]}")
    if not NAME.fullmatch(name) or len(name) > 40:
        raise UsageError(f"{name!r} isn't a name for a plugin", "use lower case, such as dawn or night-sky")
    if taken := installed().found.get(name):
        raise UsageError(f"there is a plugin {name!r} already: {taken.package}", "choose another name")
    module = f"hy_{name.replace('-', '_')}"
    if importlib.util.find_spec(module):
        raise UsageError(f"there is a module {module} already", "choose another name")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists already", "choose another name, or move it away")
    if not os.access(folder.parent, os.W_OK):
        raise UsageError(f"can't write into {folder.parent}", "go to another folder")


def placed(stem: str, module: str) -> Path:
    """Where a file of the template goes."""
    names = {"plugin.py": f"{module}.py", "test_plugin.py": f"tests/test_{module.removeprefix('hy_')}.py"}
    return Path(names.get(stem, stem))


# -- install ---------------------------------------------------------------------------------------------


@command.command("install", context_settings={"ignore_unknown_options": True})
@click.argument("packages", nargs=-1, required=True, type=click.UNPROCESSED)
def install(packages: tuple[str, ...]) -> None:
    """Install PACKAGES where hy itself is installed; options of pip, such as --upgrade, are passed on."""
    before = set(installed().found)
    line = installer(packages)
    output.note(f"$ {shlex.join(line)}")
    if subprocess.run(line).returncode:
        raise HyError(f"couldn't install {' '.join(packages)}", "what the installer says stands above")
    importlib.invalidate_caches()
    fresh = sorted(set(Plugins().found) - before)
    for name in fresh:
        click.echo(name)
    if not fresh:
        output.note("no plugin that wasn't there before; hy plugins list shows all")


def installer(packages: Sequence[str]) -> list[str]:
    """The command that installs into this very environment, or a MissingError that says it."""
    by_uv = ["uv", "pip", "install", "--python", sys.executable, *packages]
    if uv := shutil.which("uv"):
        return [uv, *by_uv[1:]]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", *packages]
    raise MissingError("neither uv nor pip is here", f"get uv, then: {shlex.join(by_uv)}")


# -- bisect ----------------------------------------------------------------------------------------------


@command.command("bisect")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def bisect(arguments: tuple[str, ...]) -> None:
    """Find the plugin that makes a command fail, by running it with ever fewer of them.

    \b
    $ hy plugins bisect -- generate "a red circle" -p one -p two -p three
    """
    from hy_core.cli.select import mentioned

    plugins, arguments = installed(), spelt_out(arguments)
    named = [value for flag, value in zip(arguments, arguments[1:], strict=False) if flag == "-p"]
    selected = mentioned(arguments, named, plugins.found)
    if not selected:
        raise UsageError("the command selects no plugins", "put it after --, with its -p options")

    with tempfile.TemporaryDirectory(prefix="hy-bisect-") as folder:

        def fails(names: Sequence[str]) -> bool:
            line = without(arguments, set(selected) - set(names), plugins)
            run = [sys.executable, "-m", "hy_core", *line]
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
    left, at = [], 0
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
