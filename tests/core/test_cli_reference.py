"""docs/cli.md shows what `--help` says. HY_UPDATE_DOCS=1 writes it anew."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from hy_core.cli import COMMANDS, cli
from hy_core.cli.select import PluginCommand

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
WIDTH = {"terminal_width": 80, "max_content_width": 80}
HEAD = """# Every command

What `hy COMMAND --help` says, for the commands of hy-core. Other packages bring more (see `hy --help`),
and plugins add options to `hy generate` (`hy generate -p NAME --help`).
"""


def helps(name: str, command: click.Command, parent: click.Context) -> list[tuple[str, str]]:
    """The help of a command and of all below it."""
    with click.Context(
        command, parent=parent, info_name=name, terminal_width=80, max_content_width=80
    ) as context:
        if isinstance(command, PluginCommand):
            with pytest.raises(click.exceptions.Exit):
                command.make_context(name, ["--help"], parent=parent)
            return []
        found = [(context.command_path, command.get_help(context))]
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found += helps(below, command.get_command(context, below), context)
        return found


def page(capsys: pytest.CaptureFixture[str]) -> str:
    """The page as the commands are now."""
    parts = [HEAD]
    with click.Context(cli, info_name="hy", **WIDTH, **cli.context_settings) as root:
        for name in COMMANDS:
            found = helps(name, cli.get_command(root, name), root)
            shown = capsys.readouterr().out
            for path, text in found or [(f"hy {name}", shown.rstrip())]:
                parts.append(f"## {path}\n\n```\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def test_the_page_of_commands_is_what_help_says(capsys, monkeypatch) -> None:
    from hy_core import plugins

    monkeypatch.setenv("HY_PLUGINS", "")  # the page is the same whatever is installed
    monkeypatch.setenv("COLUMNS", "82")
    plugins.installed.cache_clear()
    now = page(capsys)
    plugins.installed.cache_clear()
    if os.environ.get("HY_UPDATE_DOCS"):
        PAGE.write_text(now, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == now, "run this test with HY_UPDATE_DOCS=1"


def test_every_option_has_help() -> None:
    def walk(command: click.Command, context: click.Context) -> None:
        for one in command.get_params(context):
            if isinstance(one, click.Option):
                assert one.help, f"{context.command_path} {one.opts}"
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                walk(below, click.Context(below, parent=context, info_name=name))

    with click.Context(cli, info_name="hy") as root:
        for name in COMMANDS:
            command = cli.get_command(root, name)
            walk(command, click.Context(command, parent=root, info_name=name))
