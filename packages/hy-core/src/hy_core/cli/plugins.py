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
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import click

from hy_core import hooks, options
from hy_core.cli import output
from hy_core.cli.bisect import bisect
from hy_core.errors import HyError, MissingError, PluginError, UsageError
from hy_core.guard import blame
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
@click.option(
    "--adapter", is_flag=True, help="One that attaches a module to the network, with a training recipe."
)
def new(name: str, adapter: bool) -> None:
    """Write the start of a plugin into ./hy-NAME: a module, its packaging, and tests that pass.

    Without --adapter it changes finished frames; with it, it attaches a trained module to the network.
    """
    folder = Path.cwd() / f"hy-{name}"
    refuse(name, folder)
    module = f"hy_{name.replace('-', '_')}"
    words = {
        "name": name,
        "module": module,
        "class": "".join(part.capitalize() for part in name.replace("_", "-").split("-")),
        "files": f'"{module}.py", "{module}.toml"' if adapter else f'"{module}.py"',
        "example": "0.1 " + options.flag(name, "curve") + " 0.9" if adapter else "0.5",
        "flag": options.flag(name, "curve" if adapter else "level"),
    }
    template = TEMPLATE / ("adapter" if adapter else "finish")
    sources = [*sorted(TEMPLATE.glob("*.in")), *sorted(template.glob("*.in"))]
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as partial:
            for source in sources:
                target = Path(partial, "new", placed(source.stem, module))
                target.parent.mkdir(parents=True, exist_ok=True)
                text = Template(source.read_text(encoding="utf-8")).substitute(words)
                target.write_text(text, encoding="utf-8")
            Path(partial, "new").rename(folder)
    except OSError as error:
        raise HyError(
            f"can't write {folder}: {error.strerror}", "make room, or go to another folder"
        ) from None
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
    names = {
        "plugin.py": f"{module}.py",
        "recipe.toml": f"{module}.toml",
        "test_plugin.py": f"tests/test_{module.removeprefix('hy_')}.py",
    }
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


# -- run -------------------------------------------------------------------------------------------------


@command.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("plugin")
@click.argument("name", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(plugin: str, name: str | None, arguments: tuple[str, ...]) -> None:
    """Run the command NAME that PLUGIN, a name or the path of a Python file, registers; list them without NAME."""
    found = installed().commands([plugin])
    if name is None:
        for one in found:
            click.echo(one)
        return
    chosen = found.pick(name)
    if not isinstance(chosen, click.Command):
        raise PluginError(f"plugin {found.owner(name)!r}: command {name!r} is not a click command")
    with blame(found.owner(name), f"command {name!r}", chosen.callback, (click.ClickException, click.Abort)):
        chosen.main(list(arguments), prog_name=f"hy plugins run {plugin} {name}", standalone_mode=False)


command.add_command(bisect)
