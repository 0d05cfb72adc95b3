"""Commands and Python code of README and docs run.

Blocks marked `sh` are executed in order, cheaply; blocks marked `console` are parsed: the command, its options and
their values must exist. Blocks marked `python` are compiled, and outside of docs/plugins executed unless they say
`no-run`.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from compose.test_docs import PAGES, PROSE, ROOT
from hy_core import media
from hy_core.cli import cli
from hy_core.errors import HyError, MissingError

CHEAP = {"HY_STEPS": "1", "HY_FRAMES": "5", "HY_AUDIO_STEPS": "1"}
NOT_HERE = ("does not exist", "not found")


def blocks(path: Path, kind: str) -> list[tuple[str, str]]:
    """Code blocks of a page: what stands after the language, and the code."""
    found = re.findall(
        rf"^( *)```{kind}\b([^\n]*)\n(.*?)^\1```", path.read_text(encoding="utf-8"), re.M | re.S
    )
    return [(marks, textwrap.dedent(code)) for _, marks, code in found]


def commands(code: str) -> list[list[str]]:
    """The `hy` commands of a block, split as a shell does it."""
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ ").removeprefix("uv run "), comments=True) for line in lines]
    return [one[1:] for one in words if one[:1] == ["hy"] and len(one) > 1]


def parse(words: list[str]) -> None:
    """Parse one command line as click does it, without running it. Files may be missing; options may not."""
    command, context, name = cli, click.Context(cli, info_name="hy"), ""
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}"
        command = found
    if isinstance(command, click.Group):
        return
    try:
        command.make_context(name, list(words), parent=context).close()
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.BadParameter as error:
        assert any(text in str(error) for text in NOT_HERE), str(error)
    except MissingError:
        pass  # a file or folder of the reader
    except HyError as error:
        raise AssertionError(error.message) from error


def pages_with(kind: str) -> list[Path]:
    return [path for path in PROSE if blocks(path, kind)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", pages_with("(?:sh|console)"), ids=name)
def test_commands_parse(path):
    for _, code in blocks(path, "(?:sh|console)"):
        for words in commands(code):
            try:
                parse(words)
            except (AssertionError, click.UsageError) as error:
                raise AssertionError(f"hy {shlex.join(words)}: {error}") from None


def test_a_wrong_option_is_found():
    with pytest.raises(click.NoSuchOption):
        parse(["generate", "a red circle", "--no-such-option"])
    with pytest.raises(AssertionError, match="no command"):
        parse(["paint"])


@pytest.mark.parametrize("path", pages_with("sh"), ids=name)
def test_shell_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _, code in blocks(path, "sh"):
        for words in commands(code):
            if words[0] == "doctor":
                continue  # its exit code tells about this machine
            run = CliRunner().invoke(cli, words, prog_name="hy", env=CHEAP)
            assert run.exit_code == 0, f"hy {shlex.join(words)}: {run.output} {run.exception}"


@pytest.mark.parametrize("path", pages_with("python"), ids=name)
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for marks, code in blocks(path, "python"):
        ast.parse(code)
        if "no-run" not in marks and PAGES not in path.parents:
            exec(compile(code, name(path), "exec"), {})


@pytest.mark.parametrize("path", [path for path in pages_with("toml") if "how-to" in path.parts], ids=name)
def test_recipes_in_pages_are_right(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _, code in blocks(path, "toml"):
        if "objective = " not in code or "./" in code:
            continue  # those with a plugin file have tests of their own
        (tmp_path / "recipe.toml").write_text(code, encoding="utf-8")
        if 'path = "clips/"' in code:
            (tmp_path / "clips").mkdir()
            media.write(tmp_path / "clips" / "clip.mp4", np.zeros((17, 64, 64, 3), np.uint8), 8.0)
            (tmp_path / "clips" / "clip.txt").write_text("a clip", encoding="utf-8")
        run = CliRunner().invoke(cli, ["train", "recipe.toml", "--dry-run"], prog_name="hy")
        assert run.exit_code == 0, f"{run.output} {run.exception}"
