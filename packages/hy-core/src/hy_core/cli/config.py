"""hy config: what the settings are and where each comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hy_core import files, options, settings
from hy_core.cli import output
from hy_core.cli.select import SELECTION, Selection
from hy_core.conditioner import suggested
from hy_core.errors import UsageError
from hy_core.settings import Settings, Value


@click.group("config")
def command() -> None:
    """Show, write and check settings.

    \b
    $ hy config show generate --preset draft
    $ hy config init run.toml && hy generate -c run.toml
    $ hy config check run.toml
    """


@command.command("show", context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(["generate"]), metavar="generate")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def show(context: click.Context, name: str, arguments: tuple[str, ...]) -> None:
    """Print what `hy generate ARGUMENTS` would use, as TOML with the origin of each value."""
    merged, tables, selection, as_json = resolved(arguments)
    if as_json:
        values = {key: found._asdict() for key, found in merged.items()}
        more = {
            owner: {key: found._asdict() for key, found in table.items()} for owner, table in tables.items()
        }
        click.echo(json.dumps({**values, **more}, indent=2, ensure_ascii=False))
        return
    if selection.names:
        click.echo(f"plugins = {toml(list(selection.names))}")
    click.echo("\n".join(rows(merged)))
    for owner, table in tables.items():
        click.echo(f"\n[{owner}]")
        click.echo("\n".join(rows(table)))


def resolved(
    arguments: tuple[str, ...],
) -> tuple[dict[str, Value], dict[str, dict[str, Value]], Selection, bool]:
    """Every setting of a `hy generate` command line with its origin, the model's defaults filled in."""
    from hy_core import models
    from hy_core.cli.generate import command as generate

    inner = generate.make_context("generate", ["--dry-run", *arguments])
    selection: Selection = inner.meta[SELECTION]
    merged: Settings = selection.settings(inner)
    values = {key: merged.core(key) for key in settings.CORE}
    conditioners, tables = selection.conditioners(merged)
    models_own = asdict(models.defaults(values["model"].value))
    own = suggested(conditioners, settings.with_rate(merged, models_own))
    sized = own["width"] != models_own["width"] or own["height"] != models_own["height"]
    own["size"] = f"{own['width']}x{own['height']}"
    for key, found in values.items():
        if (
            found.value is None
            and own.get(key) is not None
            and not (key == "frames" and values["seconds"].value)
        ):
            changed = sized if key == "size" else own[key] != models_own.get(key)
            values[key] = Value(own[key], "plugins" if changed else f"model {values['model'].value}")
    return values, tables, selection, inner.params["as_json"]


def rows(values: Mapping[str, Value]) -> list[str]:
    """`steps = 8  # preset draft`; what is unset is a comment."""
    lines = [
        f"# {key} =" if one.value is None else f"{key} = {toml(one.value)}" for key, one in values.items()
    ]
    width = min(max(map(len, lines), default=0), 48)
    return [
        f"{line:<{width}}  # {output.clean(one.origin)}"
        for line, one in zip(lines, values.values(), strict=True)
    ]


def toml(value: Any) -> str:
    """A value as TOML; JSON's strings, numbers, true and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


@command.command("presets")
@click.option("-p", "--plugin", metavar="NAME", multiple=True, help="Include the presets of a plugin.")
def list_presets(plugin: tuple[str, ...]) -> None:
    """List the presets and what each sets."""
    from hy_core.plugins import installed

    plugins = installed()
    plugins.load(*plugin)
    known = plugins.presets()
    for name in known:
        layer = settings.preset_layer(name, known)
        values = " ".join(f"{key}={value}" for key, value in layer.core.items())
        tables = " ".join(f"[{owner}]" for owner in layer.tables)
        click.echo(f"{name:<12} {values} {tables}".rstrip())


@command.command("init")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--user", is_flag=True, help="Write the user's own file, which every run reads.")
@click.option("-p", "--plugin", metavar="NAME", multiple=True, help="Include the options of a plugin.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(file: Path | None, user: bool, plugin: tuple[str, ...], force: bool) -> None:
    """Write a commented FILE with every setting (hy.toml unless named)."""
    if user and file is not None:
        raise UsageError("--user and a file", "give one of them")
    path = settings.user_file() if user else file or Path("hy.toml")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "--force replaces it")
    text = blank(plugin, prompt=not user)
    files.write_text(path, text)
    click.echo(str(path))


def blank(plugin: tuple[str, ...], prompt: bool) -> str:
    """A file in which every setting is a comment: help, then the key with its default."""
    from hy_core.plugins import installed

    plugins = installed()
    names = plugins.load(*plugin)
    lines = ["# Settings of hy generate. Flags and HY_* variables are stronger than this file.", ""]
    if prompt:
        lines += ["# What to see.", '# prompt = "a red circle moves right"', ""]
    lines += ["# Plugins to use.", f"plugins = {toml(names)}" if names else "# plugins = []", ""]
    lines += described(settings.CORE.values())
    for owner, kind in plugins.conditioners(names).items():
        lines += [f"[{owner}]", *described(options.fields(kind.Options))]
    return "\n".join(lines).rstrip() + "\n"


def described(found: Any) -> list[str]:
    lines = []
    for one in found:
        default = "" if one.required or one.default is None else toml(options_plain(one.default))
        choices = f" One of: {', '.join(one.choices)}." if one.choices else ""
        lines += [f"# {one.help}{choices}", f"# {one.name} = {default}".rstrip(), ""]
    return lines


def options_plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [options_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


@command.command("check")
@click.argument("files", type=click.Path(dir_okay=False, path_type=Path), nargs=-1)
@click.option("-p", "--plugin", metavar="FILE", multiple=True, help="Run a plugin file, to check its table.")
def check(files: tuple[Path, ...], plugin: tuple[str, ...]) -> None:
    """Check FILES (the user's own file without any). Plugins that are files are not run unless -p names them."""
    from hy_core.cli.select import is_file, unrun
    from hy_core.plugins import installed

    if not files and not settings.user_file().is_file():
        output.note(f"{settings.user_file()} does not exist: nothing to check")
        return
    for path in files or (settings.user_file(),):
        plugins = installed()
        layer = settings.read_file(path)
        allowed = {str(Path(name).resolve()) for name in plugin}
        files_of = [name for name in layer.plugins if is_file(name)]
        skipped = [name for name in files_of if str(Path(name).resolve()) not in allowed]
        for name in skipped:
            output.note(unrun(name))
        unread = [Path(name).stem for name in skipped]
        names = plugins.load(*(name for name in layer.plugins if name not in skipped))
        kinds = {name: kind.Options for name, kind in plugins.conditioners(names).items()}
        if not files:
            layer = settings.read_file(path, strict=False)
        merged = Settings([layer])
        merged.check(kinds, [*plugins.found, *unread], unread)
        for key in settings.CORE:
            merged.core(key)
        if layer.core.get("size") is not None:
            settings.parse_size(merged.core("size").value, layer.label("size"))
        for name, table in layer.tables.items():
            for one in options.fields(kinds[name]) if name in kinds else ():
                if one.name in table:
                    one.check(table[one.name], layer.label(one.name, name))
        click.echo(f"{path} is fine")
