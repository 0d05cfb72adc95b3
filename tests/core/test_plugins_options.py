"""Options of plugins on the command line: flags that collide, files that only run when they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "from dataclasses import dataclass\nfrom hy_core import Conditioner, hookimpl, option\n"
PLUGIN = (
    HEAD
    + """
print("RUN")


class One(Conditioner):
    '''One.'''

    @dataclass(frozen=True)
    class Options:
        {option}: str = option("", help="A word.")


@hookimpl
def register_conditioners(register):
    register(One)


@hookimpl
def register_samplers(register):
    register("{name}-steps", "hy_core.flow.sampler:sample_euler")


@hookimpl
def register_commands(register):
    import click

    @click.command()
    @click.option("--times", default=1)
    @click.argument("word")
    def say(word, times):
        click.echo(" ".join([word] * times) if word != "break" else 1 / 0)

    register("say", say)
"""
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, option: str) -> str:
    path = Path(f"{name}.py")
    path.write_text(PLUGIN.replace("{option}", option).replace("{name}", name))
    return f"./{path}"


@pytest.mark.parametrize(
    "plugins, message",
    [
        ([("dry", "run")], "--dry-run is a flag of the command itself and of plugin 'dry' (option 'run')"),
        (
            [("a", "b_c"), ("a_b", "c")],
            "--a-b-c is a flag of plugin 'a' (option 'b_c') and of plugin 'a_b' (option 'c')",
        ),
        ([("no", "provenance")], "--no-provenance is a flag of the command itself and of plugin 'no'"),
    ],
)
def test_flags_that_collide_are_one_line_that_names_both(hy, plugins, message):
    words = [word for name, option in plugins for word in ("-p", write(name, option))]
    run = hy("generate", "a red circle", *words, "--dry-run")
    assert run.exit_code == 2 and run.stderr.startswith(f"Error: {message}"), run.stderr


def test_a_flag_of_the_command_selects_no_plugin_that_begins_like_it(hy):
    run = hy("generate", "a red circle", "--dry-run")
    assert run.exit_code == 0, run.stderr


# -- commands that only look -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["config", "check", "hy.toml"],
        ["config", "show", "generate", "-c", "hy.toml"],
        ["generate", "a fox", "-c", "hy.toml", "--dry-run"],
        ["generate", "-c", "hy.toml", "--help"],
    ],
)
def test_commands_that_only_look_run_no_file_that_a_configuration_names(hy, command):
    path = write("mist", "word")
    Path("hy.toml").write_text(f"plugins = ['{path}']\n[mist]\nword = 'grey'\n")
    run = hy(*command)
    assert run.exit_code == 0 and "RUN" not in run.stdout + run.stderr, run.stderr
    if "--help" not in command:
        assert "mist.py is not run to look at a configuration: add -p" in run.stderr
    run = hy(*command, "-p", path)
    assert run.exit_code == 0 and "RUN" in run.stdout, run.stderr
    Path("hy.toml").write_text(f"plugins = ['{path}']\n[mist]\nwort = 'grey'\n")
    if "--help" not in command:
        run = hy(*command, "-p", path)
        assert run.exit_code == 2 and "[mist] wort: unknown key" in run.stderr


def test_bisect_imports_nothing_from_the_current_folder(hy):
    Path("torch.py").write_text("open('imported', 'w')")
    Path("hy_core.py").write_text("open('imported', 'w')")
    hy("plugins", "bisect", "--", "generate", "x", "-p", write("mist", "word"), "--size", "1x1")
    assert not Path("imported").exists()


# -- what is listed and run ------------------------------------------------------------------------------


def test_samplers_of_plugins_are_in_the_help_and_the_completion(hy):
    path = write("mist", "word")
    help = " ".join(hy("generate", "-p", path, "--help").stdout.split())
    assert "euler, heun, stochastic, mist-steps; the model's own if not given." in help
    environment = os.environ | {
        "_HY_COMPLETE": "bash_complete",
        "COMP_WORDS": "hy generate --sampler h",
        "COMP_CWORD": "3",
    }
    code = "from hy_core.cli import cli; cli.main(prog_name='hy')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,heun"], done.stderr


def test_a_command_of_a_file(hy):
    path = write("mist", "word")
    assert hy("plugins", "run", path).stdout.split() == ["RUN", "say"]
    assert hy("plugins", "run", path, "say", "--times", "2", "fog").stdout.endswith("fog fog\n")
    run = hy("plugins", "run", path, "say", "break")
    assert run.exit_code == 3 and "plugin 'mist', command 'say' (mist.py:33): ZeroDivisionError" in run.stderr
    run = hy("plugins", "run", path, "say", "--tims", "2", "fog")
    assert run.exit_code == 2 and "--tims" in run.stderr
    run = hy("plugins", "run", path, "sing")
    assert run.exit_code == 2 and "no command 'sing'" in run.stderr


# -- what is pasted, and where it is shown ---------------------------------------------------------------


@pytest.mark.parametrize("line", ["x @ file:///tmp/$(touch${IFS}pasted)", "x; extra == '`touch pasted`'"])
def test_a_hint_runs_nothing_when_it_is_pasted(hy, line):
    Path("hy.toml").write_text(f"requires = [{line!r}]\n")
    run = hy("generate", "x", "-c", "hy.toml")
    assert run.exit_code in (2, 3)
    for text in run.stderr.splitlines():
        command = text.removeprefix("Hint: ").removeprefix("Error: ")
        subprocess.run(["sh", "-c", f"hy() {{ :; }}; pip() {{ :; }}; {command}"], capture_output=True)
    assert not Path("pasted").exists()


def test_a_latin_1_terminal_a_full_and_a_closed_stdout(tmp_path):
    Path("hy.toml").write_text("prompt = 'ein Wal \\u2603'\n")
    command = [
        sys.executable,
        "-m",
        "hy_core",
        "config",
        "show",
        "generate",
        "-c",
        "hy.toml",
        "--negative",
        "☃",
    ]
    latin = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=latin, capture_output=True)
    assert done.returncode == 0 and b"\\u2603" in done.stdout and b"Traceback" not in done.stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.strip().endswith("No space left on device"), done.stderr
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_a_full_disk_while_a_new_plugin_is_written_is_one_line(hy, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    run = hy("plugins", "new", "dew")
    assert run.exit_code == 1 and "hy-dew: No space left on device" in run.stderr
    assert not os.listdir(".")


def test_paths_that_are_none(hy):
    for line in (
        "output = '~nobody-has-this-name/x.mp4'",
        'output = "a\\u0000b.mp4"',
        "output = '" + "x" * 9000 + "'",
    ):
        Path("hy.toml").write_text(line)
        run = hy("generate", "x", "-c", "hy.toml", "--dry-run")
        assert run.exit_code == 2 and "hy.toml: output: " in run.stderr, run.stderr
        assert len(run.stderr) < 300
