"""Parsing in two phases: which plugins a command line means, then the options of those."""

from __future__ import annotations

import copy
import logging
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from hy_core import options, settings
from hy_core.cli import output
from hy_core.errors import ConflictError
from hy_core.settings import Layer, Settings, Value

if TYPE_CHECKING:
    from hy_core.conditioner import Conditioner
    from hy_core.plugins import Plugins

SELECTION = "hy_core.cli.selection"
SHORT = {"output": "-o"}


@dataclass
class Selection:
    """The plugins of a command line, their conditioners by name, and the settings below its flags."""

    plugins: Plugins
    names: list[str]
    kinds: dict[str, type[Conditioner]]
    files: list[Layer] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Python files that a configuration names and that a command which only looks doesn't run."""

    @property
    def known(self) -> list[str]:
        """The names that a table of a configuration may have: installed plugins, and files that were skipped."""
        return [*self.plugins.found, *(Path(path).stem for path in self.skipped)]

    @property
    def option_kinds(self) -> dict[str, type]:
        """The Options class of each conditioner."""
        return {name: kind.Options for name, kind in self.kinds.items()}

    def settings(self, context: click.Context) -> Settings:
        """Flags, environment and files, checked for unknown keys; a note for each plugin file that wasn't run."""
        for path in self.skipped:
            output.note(unrun(path))
        given = {
            name: context.params[name]
            for name in settings.CORE
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        tables = {name: options.given(context, name, kind) for name, kind in self.option_kinds.items()}
        flags = Layer("flags", given, {name: table for name, table in tables.items() if table})
        merged = Settings([flags, settings.environment(self.option_kinds), *self.files])
        merged.check(self.option_kinds, self.known, unread=[Path(path).stem for path in self.skipped])
        return merged

    def with_samplers(self, parameter: click.Parameter) -> click.Parameter:
        """The option `--sampler` with the samplers of the selected plugins in its help and completion."""
        if parameter.name != "sampler" or not isinstance(parameter, click.Option):
            return parameter
        names = list(self.plugins.samplers())
        found = copy.copy(parameter)
        found.help = f"{', '.join(names)}; the model's own if not given."
        found._custom_shell_complete = lambda ctx, param, start: [  # what shell_complete= of an option sets
            CompletionItem(name) for name in names if name.startswith(start)
        ]
        return found

    def conditioners(self, merged: Settings) -> tuple[list[Conditioner], dict[str, dict[str, Value]]]:
        """The conditioners with their options, and the origin of each option."""
        made, origins = [], {}
        for name, kind in self.kinds.items():
            chosen, origins[name] = merged.options(name, kind.Options)
            made.append(kind(chosen))
        return made, origins


class PluginCommand(click.Command):
    """A command that takes `settings.Core`, and the options of the plugins that its arguments select."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = with_rewriter(args)
        try:
            ctx.meta[SELECTION] = selection = select(self, ctx, args)
            refuse_collisions(selection, super().get_params(ctx))
        except Exception:
            if not ctx.resilient_parsing:  # completing: a broken plugin must not break the shell
                raise
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:
            if "unexpected extra argument" in error.message:
                hint = 'Hint: put the prompt in quotes: hy generate "a red circle"'
                raise click.UsageError(f"{error.message}\n{hint}", ctx) from None
            raise

    def make_parser(self, ctx: click.Context) -> Any:
        """Make a parser that takes `-a fox in snow` for a prompt: no flag holds a space."""
        parser: Any = super().make_parser(ctx)
        process = parser._process_opts

        def process_opts(word: str, state: Any) -> None:
            if re.match(r"-[^=]*\s", word):
                state.largs.append(word)
            else:
                process(word, state)

        parser._process_opts = process_opts
        return parser

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        selection = ctx.meta.get(SELECTION)
        more = [] if selection is None else [one for group in groups(selection).values() for one in group]
        own = super().get_params(ctx)
        return [*(own if selection is None else map(selection.with_samplers, own)), *more]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        selection = ctx.meta[SELECTION]
        own = [
            selection.with_samplers(one)
            for one in click.Command.get_params(self, ctx)
            if isinstance(one, click.Option)
        ]
        found = {"Options": own, **{heading(selection, name): g for name, g in groups(selection).items()}}
        for title, members in found.items():
            with formatter.section(title):
                rows = [row for one in members if (row := one.get_help_record(ctx))]
                formatter.write_dl(rows or [("(none)", "")])
        rest = [name for name in selection.plugins.found if name not in selection.names]
        if rest:
            formatter.write_paragraph()
            formatter.write_text(f"Plugins (add -p NAME to see its options): {', '.join(rest)}")


def groups(selection: Selection) -> dict[str, list[click.Option]]:
    """The click options of each conditioner."""
    return {name: options.click_options(name, kind) for name, kind in selection.option_kinds.items()}


def refuse_collisions(selection: Selection, own: Sequence[click.Parameter]) -> None:
    """Raise `ConflictError` if two options take one flag: two plugins', or a plugin's and the command's own."""
    owners = {flag: "the command itself" for one in own for flag in (*one.opts, *one.secondary_opts)}
    for name, members in groups(selection).items():
        for one in members:
            for flag in (*one.opts, *one.secondary_opts):
                mine = f"plugin {name!r} (option {str(one.name).removeprefix(options.parameter(name, ''))!r})"
                if owners.setdefault(flag, mine) != mine:
                    raise ConflictError(
                        f"{flag} is a flag of {owners[flag]} and of {mine}",
                        "use one of them, or rename the option",
                    )


def heading(selection: Selection, name: str) -> str:
    """`dawn options (hy-dawn 0.1.0): follow a brightness curve`."""
    about = (selection.kinds[name].__doc__ or "").strip().splitlines()
    found = selection.plugins.loaded.get(name)
    package = f" ({found.package})" if found and found.package else ""
    return f"{name} options{package}" + (f", {about[0].rstrip('.')}" if about else "")


def select(command: click.Command, ctx: click.Context, args: Sequence[str]) -> Selection:
    """Load what the arguments and the files name, and nothing else."""
    from hy_core.plugins import installed

    plugins = installed()
    parser = command.make_parser(ctx)
    parser.ignore_unknown_options = True
    peeked, _, _ = parser.parse_args(list(args))
    looks = ctx.resilient_parsing or peeked.get("dry_run") or asks_for_help(args)
    skipped: list[str] = []

    def named(layer: Layer) -> list[str]:
        """The plugins of a configuration; of those that are files only the loaded ones, if nothing is to run."""
        files = [name for name in layer.plugins if is_file(name)]
        chosen = {str(Path(name).resolve()) for name in peeked.get("plugin") or [] if is_file(name)}
        unrun = [name for name in files if looks and str(Path(name).resolve()) not in chosen]
        skipped.extend(unrun)
        return [name for name in layer.plugins if name not in unrun]

    files = []
    own = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    chosen = mentioned(args, peeked.get("plugin") or [], plugins.found, own)
    if peeked.get("config"):
        files.append(settings.read_file(Path(peeked["config"])))
        chosen += named(files[0])
    user = settings.user_layer()
    plugins.load(*chosen)
    if peeked.get("preset"):
        preset = settings.preset_layer(peeked["preset"], plugins.presets())
        chosen += named(preset)
        files.append(preset)
    if user is not None:
        chosen += named(user)
        files.append(user)
    names = list(dict.fromkeys(plugins.load(*chosen)))
    return Selection(plugins, names, dict(plugins.conditioners(names)), files, skipped)


def with_rewriter(args: Sequence[str]) -> list[str]:
    """Write `--rewrite` with its value; a folder or an address may follow it, else it means the model's own."""
    written, rest = list[str](), list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*written, word, *rest]
        if word == "--rewrite":
            follows = bool(rest) and (rest[0].startswith(("http://", "https://")) or os.path.isdir(rest[0]))
            word = f"--rewrite={rest.pop(0) if follows else 'auto'}"
        written.append(word)
    return written


def unrun(path: str) -> str:
    """The note about a plugin file that a command which only looks doesn't run."""
    return f"{path} is not run to look at a configuration: add -p {shlex.quote(path)} to see and check its options"


def is_file(plugin: str) -> bool:
    """Whether a plugin is named by the path of a file."""
    return plugin.endswith(".py") or "/" in plugin or os.sep in plugin


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether an argument before `--` is a help flag."""
    return any(word in ("-h", "--help") for word in args[: args.index("--") if "--" in args else None])


def mentioned(
    args: Sequence[str], named: Sequence[str], found: Mapping[str, Any], own: Collection[str] = ()
) -> list[str]:
    """Plugins in the order of their first mention: by `-p`, or by an option that begins with their name.

    `own` are the flags of the command itself, which select no plugin.
    """
    order, waiting = [], list(named)
    flags = {f"--{name}-".replace("_", "-"): name for name in sorted(found, key=len, reverse=True)}
    for arg in args:
        if arg == "--":
            break
        word = arg.partition("=")[0]
        if word not in own:
            order += [name for flag, name in flags.items() if word.startswith(flag)][:1]
        if waiting and arg in (waiting[0], f"-p{waiting[0]}", f"--plugin={waiting[0]}"):
            order.append(waiting.pop(0))
    return list(dict.fromkeys([*order, *waiting]))


def core_options() -> list[click.Option]:
    """The flags of `settings.Core`; what isn't given lets lower layers show through."""
    return [core_option(one) for one in settings.CORE.values()]


def core_option(one: options.Option) -> click.Option:
    flag = f"--{one.name.replace('_', '-')}"
    spelling = [one.name, *([SHORT[one.name]] if one.name in SHORT else []), flag]
    if one.kinds == (bool,):
        return click.Option(spelling, is_flag=True, help=one.help)
    kind: Any = {str: click.STRING, int: click.INT, float: click.FLOAT}[one.kinds[0]]
    if one.choices:
        kind = click.Choice(one.choices)
    shown = f"  [default: {one.default}]" if one.default not in (None, "") else ""
    return click.Option(spelling, type=kind, metavar=one.metavar, help=one.help + shown)


def heed_warnings(quiet: bool) -> None:
    """Warnings and log lines of libraries and of ours become one line each, or none."""
    import warnings

    def show(message: Any, category: type, *place: Any, **more: Any) -> None:
        if not quiet and issubclass(category, UserWarning):
            output.warn(str(message))

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not quiet:
                output.warn(record.getMessage())

    warnings.showwarning = show
    for name in ("hy", "hy_core"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [Lines(logging.WARNING)], False
