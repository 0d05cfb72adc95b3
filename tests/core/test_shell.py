"""The command that a record gives makes the clip again in any POSIX shell; a hostile record does no harm."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hy_core import option, provenance, shell
from hy_core.request import Request
from hypothesis import given, settings
from hypothesis import strategies as st

REQUEST = Request(
    "a red circle moves right", width=64, height=48, frames=17, fps=8.0, steps=4, seed=7, cfg=2.5
)
SHELLS = [
    name
    for name in ("sh", "bash", "dash", "zsh", "ksh", "busybox")
    if shutil.which(name) and name != "busybox"
]
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/bin:/usr/bin"}


def flags(words: list[str]) -> dict[str, str]:
    return {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}


def test_the_command_states_the_whole_request() -> None:
    request = replace(
        REQUEST, negative="blur", shift=5.5, guidance=6.0, sampler="heun", compile=True, dtype="bf16"
    )
    words = shell.arguments(provenance.record(request))
    found = flags(words)
    assert words[:2] == ["hy", "generate"] and words[-1] == request.prompt
    assert found["--size"] == "64x48" and found["--frames"] == "17" and found["--fps"] == "8"
    assert found["--cfg"] == "2.5" and found["--shift"] == "5.5" and found["--guidance"] == "6"
    assert found["--negative"] == "blur" and found["--sampler"] == "heun" and found["--dtype"] == "bf16"
    assert "--compile" in words


@pytest.mark.parametrize("program", SHELLS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_posix_shell_reads_back_every_prompt(program: str, text: str) -> None:
    command = shell.quoted(text)
    assert all(shell.visible(c) for c in command)
    read = subprocess.run([program, "-c", f"printf %s {command}"], capture_output=True, env=ENVIRONMENT)
    assert read.stdout.decode() == text and not read.stderr


@pytest.mark.parametrize("program", SHELLS)
@pytest.mark.parametrize(
    "text",
    [
        "\1'; touch canary; #",
        "\x1b]0;x\x07$(touch canary)",
        "\n`touch canary`\n\n",
        "-\u202e%s%n\\",
        "\\'\t'",
        "\udc80\ud800$(touch canary)",
        "\0a\0",
    ],
)
def test_a_hostile_prompt_runs_nothing(tmp_path: Path, program: str, text: str) -> None:
    shown = [program, "-c", f"printf '%s' {shell.quoted(text)}"]
    read = subprocess.run(shown, capture_output=True, env=ENVIRONMENT, cwd=tmp_path)
    assert not list(tmp_path.iterdir()) and not read.stderr
    wanted = text.replace("\0", "").replace("\ud800", "?")
    assert read.stdout == wanted.encode("utf-8", "surrogateescape")


def test_a_prompt_that_looks_like_an_option_stays_a_prompt() -> None:
    words = shell.arguments(provenance.record(replace(REQUEST, prompt="--help", negative="-x")))
    assert words[-2:] == ["--", "--help"] and "--negative=-x" in words


def test_a_hostile_record_gives_a_harmless_command() -> None:
    hostile = {
        "prompt": "x'; rm -rf ~ #\x1b]0;owned\x07\u202e",
        "width": "64; reboot",
        "height": 64,
        "steps": float("inf"),
        "seed": True,
        "model": "$(reboot)\n",
        "plugins": ["$(reboot)", "ok", 3, None],
        "options": {"ok": {"$(x)": 1, "fine": "`reboot`"}, "--evil": {"a": 1}, "bad": 3},
        "unknown": "--output=/etc/passwd",
        "compile": "yes",
    }
    command = shell.command(provenance.parse(json.dumps({"hy": 1, "request": hostile}), "a.mp4"))
    assert all(shell.visible(c) for c in command)
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True).stdout
    assert words.split("\0")[:-1] == [
        *(
            "hy",
            "generate",
            "-p",
            "ok",
            "--model",
            hostile["model"],
            "--ok-fine",
            "`reboot`",
            hostile["prompt"],
        )
    ]


def test_numbers_are_exact() -> None:
    words = shell.arguments(provenance.record(replace(REQUEST, cfg=0.1 + 0.2, fps=24000 / 1001)))
    assert float(flags(words)["--cfg"]) == 0.1 + 0.2 and float(flags(words)["--fps"]) == 24000 / 1001


@dataclass(frozen=True)
class Options:
    """Options whose values don't show how they are written."""

    corner: tuple[int, int] = option((1, 2), help="two numbers")
    names: list[str] = option([], help="any number of words")
    glow: bool = option(True, help="on unless switched off")
    dark: bool = option(False, help="off unless switched on")


def test_options_are_written_as_the_command_line_takes_them() -> None:
    chosen = Options(corner=(3, -4), names=["a", "-b"], glow=False, dark=False)
    request = replace(REQUEST, plugins=("night-sky",), options={"night-sky": chosen})
    plugins = [{"name": "night-sky", "path": "/my plugins/night-sky.py", "sha256": ""}]
    words = shell.arguments(json.loads(provenance.dumps(provenance.record(request, plugins=plugins))))
    at = words.index("--night-sky-corner")
    assert words[at : at + 3] == ["--night-sky-corner", "3", "-4"]
    assert "--night-sky-no-glow" in words and "--night-sky-dark" not in words
    assert "--night-sky-names=-b" in words and words[2:4] == ["-p", "/my plugins/night-sky.py"]


def test_a_record_with_wrong_plugins_is_harmless() -> None:
    for plugins in (3, [3], [{"name": "ok", "path": 3}], [{"name": "ok", "path": "-o evil"}], {"ok": 1}):
        found = {"request": {"prompt": "x", "plugins": ["ok"]}, "plugins": plugins, "spellings": {"ok": 3}}
        assert shell.arguments(found) == ["hy", "generate", "-p", "ok", "x"]
