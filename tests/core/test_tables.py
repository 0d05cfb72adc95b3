"""Configuration files and tables: bounded, typed, and one line for whatever is wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hy_core.dit import DiTConfig
from hy_core.errors import HyError, UsageError
from hy_core.tables import (
    MOST_BYTES,
    bounded,
    check_fields,
    from_table,
    parse_json,
    parse_toml,
    read_text,
    read_toml,
)
from hy_core.vae import VAEConfig


@dataclass(frozen=True)
class Inner:
    depth: int = bounded(2, 0, 8)


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 1.0
    mode: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)


def test_a_table_becomes_a_dataclass():
    values = {"name": "x", "rate": 2, "mode": "b", "pair": [3, 4], "many": [1, 2.5], "inner": {"depth": 8}}
    made = from_table(Outer, values, "f.toml")
    assert made == Outer("x", 2.0, "b", (3, 4), (1.0, 2.5), None, Inner(8))
    assert isinstance(made.rate, float) and isinstance(made.many[0], float)


@pytest.mark.parametrize(
    "values, message",
    [
        ({}, "f.toml: name must be given"),
        ({"name": 3}, "f.toml: name: needs text, not 3"),
        ({"name": "x", "nmae": 3}, "f.toml: unknown key 'nmae'"),
        ({"name": "x", "rate": True}, "f.toml: rate: needs a number, not True"),
        ({"name": "x", "rate": float("nan")}, "f.toml: rate: needs a number, not nan"),
        ({"name": "x", "rate": 10**400}, "f.toml: rate: needs a number, not 1000"),
        ({"name": "x", "mode": "c"}, "f.toml: mode: 'c' isn't one of a, b"),
        ({"name": "x", "mode": [1]}, "f.toml: mode: [1] isn't one of a, b"),
        ({"name": "x", "pair": [1]}, "f.toml: pair: needs 2 values, not 1"),
        ({"name": "x", "many": "12"}, "f.toml: many: needs a list, not '12'"),
        ({"name": "x", "maybe": "1"}, "f.toml: maybe: needs a whole number, not '1'"),
        ({"name": "x", "inner": 3}, "f.toml: inner: needs a table, not 3"),
        ({"name": "x", "inner": {"depth": 9}}, "f.toml: inner: depth: 9 is not between 0 and 8"),
        ({"name": "y" * 10**6, "rate": "y" * 10**6}, "f.toml: rate: needs a number, not 'yyy"),
    ],
)
def test_what_does_not_fit_is_one_short_line(values, message):
    with pytest.raises(UsageError) as caught:
        from_table(Outer, values, "f.toml")
    assert caught.value.message.startswith(message) and len(caught.value.message) < 200


WRONG = {str: 3, int: "x", float: "x", bool: "x"}


@pytest.mark.parametrize("config", [DiTConfig, VAEConfig])
@pytest.mark.parametrize(
    "value", [None, "x", [], {}, 0, -1, 10**8, 10**30, 1e308, float("nan"), True, [0] * 3, ["x"]]
)
def test_every_field_of_a_model_config_refuses_what_it_cannot_be(config, value):
    """No value of any field of any type gives another error than a HyError, or a network of 10^8 blocks."""
    for name in config.__dataclass_fields__:
        try:
            made = config.from_dict({name: value})
        except HyError as error:
            assert "\n" not in error.message and len(error.message) < 300
        else:
            found = getattr(made, name)
            assert not isinstance(found, int) or found <= 2**20


@pytest.mark.parametrize("value", [None, "x" * 9, [], -1, 10**9, 1e308])
@pytest.mark.parametrize(
    "key", ["num_attention_heads", "attention_head_dim", "patch_size", "num_layers", "rope_axes_dim"]
)
def test_configs_of_diffusers_too(key, value):
    with pytest.raises(HyError):
        DiTConfig.from_dict({"num_attention_heads": 24, "attention_head_dim": 128, key: value})


def test_check_fields_converts_lists():
    made = DiTConfig(patch=[1, 2, 2])
    assert made.patch == (1, 2, 2)
    with pytest.raises(UsageError, match="^here: rate: needs a number"):
        check_fields(Outer("x", rate="fast"), "here")


# -- text ------------------------------------------------------------------------------------------------

BOMBS = {
    "deep list": "x = " + "[" * 5000 + "]" * 5000,
    "deep tables": "x = " + "{a=" * 3000 + "1" + "}" * 3000,
    "dotted": ".".join(["a"] * 200_000) + " = 1",
    "dotted lines": "\n".join(f"x{i}." + ".".join(["a"] * 1000) + " = 1" for i in range(300)),
    "header": "[" + ".".join(["a"] * 100_000) + "]",
    "digits": "steps = " + "9" * 5000,
    "large": "steps = " + "9" * 200,
    "blocks": "[[clip]]\n" * 200_000,
    "binary": "\0" * 1000,
    "not TOML": "= = =",
}


@pytest.mark.parametrize("name", BOMBS)
def test_toml_bombs_are_refused_in_time(name, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(BOMBS[name])
    start = time.perf_counter()
    with pytest.raises(UsageError, match="x.toml") as caught:
        read_toml(path)
    assert time.perf_counter() - start < 4 and len(caught.value.message) < 400 + len(str(path))


def test_json_bombs():
    for text in (
        "[" * 10**5,
        '{"a":' * 10**4 + "1" + "}" * 10**4,
        '{"a": NaN}',
        "[]",
        "3",
        '{"a": ' + "9" * 5000 + "}",
        "",
    ):
        with pytest.raises(UsageError, match="^x.json"):
            parse_json(text, "x.json")
    assert parse_json('{"a": [1, {"b": null}]}', "x.json") == {"a": [1, {"b": None}]}
    assert parse_toml("a.b = 1", "x")["a"] == {"b": 1}


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/x", "a\0b", "a\udc80b", "/dev/zero", ".", "none.toml", "x" * 5000]
)
def test_paths_that_are_no_file_are_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="^(cannot read|no such file)"):
        read_text(name)


def test_other_encodings_long_files_and_pipes(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes("\ufeffa = 'ü'".encode())
    assert read_toml(path) == {"a": "ü"}
    for data in ("a = 'ü'".encode("latin-1"), "a = 1".encode("utf-16"), b"\xff" * 9):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="is not UTF-8 text"):
            read_toml(path)
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(UsageError, match="is longer than"):
        read_toml(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="isn't a regular file"):
        read_text(tmp_path / "pipe")


@pytest.mark.parametrize("arguments", [["-c", "/dev/zero"], ["-c", "bomb.toml"]])
def test_the_command_refuses_bombs_with_little_memory(arguments, tmp_path):
    (tmp_path / "bomb.toml").write_text("[[block]]\n" * 10**7)
    command = [sys.executable, "-m", "hy_core", "config", "show", "generate", *arguments]
    limit = 3 << 30  # of addresses; torch's libraries map most of it

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, preexec_fn=limited
    )
    assert done.returncode == 2 and done.stderr.startswith("Error: "), done.stderr
    assert "Traceback" not in done.stderr
