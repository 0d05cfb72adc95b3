"""A group whose commands come from a table and from entry points, and are imported only when they run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from hy_core.errors import HyError, PluginError

CORE = "Commands"
OTHERS = "From other packages"


class LazyGroup(click.Group):
    """`table` maps a name to ("module:attribute", help); `entry_points` names a group of them.

    A dotted entry-point name such as `eval.world` nests: `hy eval world`, below a group made for it. Help
    shows the summary of the distribution, from its metadata; nothing is imported for it.
    """

    def __init__(
        self,
        *arguments: Any,
        table: Mapping[str, tuple[str, str]] | None = None,
        entry_points: str | None = None,
        found: Mapping[str, list[EntryPoint]] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.table = dict(table or {})
        self.entry_group = entry_points
        self._found = found

    @cached_property
    def found(self) -> dict[str, list[EntryPoint]]:
        """Entry points by their name below this group; those of the table can't be replaced."""
        if self._found is not None:
            return dict(self._found)
        together: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=self.entry_group) if self.entry_group else ():
            together.setdefault(entry.name, []).append(entry)
        return {name: entries for name, entries in together.items() if name.split(".")[0] not in self.table}

    def list_commands(self, ctx: click.Context) -> list[str]:
        others = sorted({name.split(".")[0] for name in self.found})
        return [*self.table, *super().list_commands(ctx), *others]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.table:
            return load(self.table[name][0], f"hy {name}")
        entries = unique(self.found.get(name, []))
        if len(entries) > 1:
            owners = " and ".join(owner(entry) for entry in entries)
            raise PluginError(f"the command {name!r} is installed by {owners}", "uninstall one of them")
        if entries:
            return load(entries[0].value, f"hy {name} of {owner(entries[0])}")
        below = self.below(name)
        if below:
            return LazyGroup(name, found=below, help=self.about(name))
        return super().get_command(ctx, name)

    def below(self, name: str) -> dict[str, list[EntryPoint]]:
        """The entry points nested below `name`."""
        cut = len(name) + 1
        return {full[cut:]: entries for full, entries in self.found.items() if full.startswith(f"{name}.")}

    def about(self, name: str) -> str:
        """One line of help out of metadata."""
        entries = self.found.get(name, [])
        if entries:
            return f"{summary(entries[0])} ({owner(entries[0])})"
        below = self.below(name)
        owners = sorted({owner(entry) for entries in below.values() for entry in entries})
        return f"{', '.join(sorted(below))} ({', '.join(owners)})"

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = click.utils.make_str(args[0])
        if not name.startswith("-") and name not in (known := self.list_commands(ctx)):
            from difflib import get_close_matches

            near = get_close_matches(name, known, 1, 0.5)
            path = ctx.command_path
            hint = f"did you mean {path} {near[0]}?" if near else f"{path} --help lists them"
            raise click.UsageError(f"no such command {name!r}\nHint: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = sorted({name.split(".")[0] for name in self.found})
        width = formatter.width - 6 - max(map(len, [*self.table, *others, ""]))
        core = [(name, about) for name, (_, about) in self.table.items()]
        core += [
            (name, command.get_short_help_str(width))
            for name in super().list_commands(ctx)
            if (command := super().get_command(ctx, name))
        ]
        for title, rows in ((CORE, core), (OTHERS if core else CORE, [(n, self.about(n)) for n in others])):
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(name, shortened(about, width)) for name, about in rows])


def load(target: str, what: str) -> click.Command:
    """Import "module:attribute"; whatever goes wrong there is one line."""
    module, _, attribute = target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except HyError:
        raise
    except Exception as error:
        raise PluginError(f"{what} failed to load: {type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise PluginError(f"{what} failed to load: {target} is not a click command")
    return command


def unique(entries: list[EntryPoint]) -> list[EntryPoint]:
    """Entry points without repeats (a package may be found twice on the path)."""
    return list({(owner(entry), entry.value): entry for entry in entries}.values())


def owner(entry: EntryPoint) -> str:
    return entry.dist.metadata["Name"] if entry.dist else entry.value.split(".")[0].split(":")[0]


def summary(entry: EntryPoint) -> str:
    return (entry.dist.metadata["Summary"] or "") if entry.dist else ""


def shortened(text: str, width: int) -> str:
    """At most `width` characters, so that a row of help is one line."""
    return text if len(text) <= width else text[: max(width - 1, 1)].rstrip() + "…"
