"""A file says how it was made; the command it gives makes it again; a stranger's record can do no harm."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hy_core import media, provenance
from hy_core.errors import HyError
from hy_core.request import Request
from hypothesis import given
from hypothesis import strategies as st

REQUEST = Request(
    "a red circle moves right", width=64, height=48, frames=17, fps=8.0, steps=4, seed=7, cfg=2.5
)


def flags(words: list[str]) -> dict[str, str]:
    return {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}


def test_the_command_states_the_whole_request() -> None:
    request = replace(
        REQUEST, negative="blur", shift=5.5, guidance=6.0, sampler="heun", compile=True, dtype="bf16"
    )
    words = provenance.arguments(provenance.record(request))
    found = flags(words)
    assert words[:2] == ["hy", "generate"] and words[-1] == request.prompt
    assert found["--size"] == "64x48" and found["--frames"] == "17" and found["--fps"] == "8"
    assert found["--cfg"] == "2.5" and found["--shift"] == "5.5" and found["--guidance"] == "6"
    assert found["--negative"] == "blur" and found["--sampler"] == "heun" and found["--dtype"] == "bf16"
    assert "--compile" in words


def test_the_record_is_the_same_for_the_same_run() -> None:
    one, two = (
        provenance.dumps(provenance.record(REQUEST, {"dit": "abc"}, "cpu", "float32")) for _ in range(2)
    )
    assert one == two
    found = json.loads(one)
    assert found["weights"] == {"dit": "abc"} and found["ran_on"] == {"device": "cpu", "dtype": "float32"}
    assert "hy-core" in found["versions"] and "torch" in found["versions"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_the_shell_reads_back_every_prompt(text: str) -> None:
    command = provenance.quoted(text)
    assert all(provenance.visible(c) for c in command)
    if not command.startswith("$"):
        assert shlex.split(command) == [text]
        return
    shell = ["bash", "-c", f"printf %s {command}"]
    read = subprocess.run(shell, capture_output=True, env={"LC_ALL": "C.UTF-8", "PATH": "/bin:/usr/bin"})
    assert read.stdout.decode() == text and not read.stderr


def test_a_prompt_that_looks_like_an_option_stays_a_prompt() -> None:
    words = provenance.arguments(provenance.record(replace(REQUEST, prompt="--help", negative="-x")))
    assert words[-2:] == ["--", "--help"] and "--negative=-x" in words


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.webp", "a.jpg"])
def test_every_container_keeps_the_record(tmp_path: Path, name: str) -> None:
    made_by = provenance.record(replace(REQUEST, prompt="ein Kreis: „größer“ 圆 \t"))
    frames = np.zeros((1 if name[2:] in ("png", "webp", "jpg") else 3, 32, 32, 3), np.uint8)
    media.write(tmp_path / name, frames, 8, comment=provenance.dumps(made_by))
    assert provenance.read(tmp_path / name) == made_by


def test_a_file_without_a_record_is_one_line(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.mp4", np.zeros((3, 32, 32, 3), np.uint8), 8)
    with pytest.raises(HyError, match="doesn't say how it was made"):
        provenance.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "made with love",
        "[1]",
        "{}",
        '{"hy": "1"}',
        '{"hy": 1}',
        '{"hy": 1, "request": {"prompt": 3}}',
        '{"hy": 99, "request": {"prompt": "x"}}',
        '{"hy": ' + "9" * 10_000 + "}",
        '{"hy": 1, "request": ' + "[" * 100_000,
        "{" + " " * provenance.MOST_BYTES,
        "null",
    ],
)
def test_comments_of_others_are_one_line(text: str) -> None:
    with pytest.raises(HyError) as caught:
        provenance.parse(text, "a.mp4")
    assert "a.mp4" in caught.value.message and len(caught.value.message) < 200


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
    command = provenance.command(provenance.parse(json.dumps({"hy": 1, "request": hostile}), "a.mp4"))
    assert all(provenance.visible(c) for c in command)
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
    words = provenance.arguments(provenance.record(replace(REQUEST, cfg=0.1 + 0.2, fps=24000 / 1001)))
    assert float(flags(words)["--cfg"]) == 0.1 + 0.2 and float(flags(words)["--fps"]) == 24000 / 1001
