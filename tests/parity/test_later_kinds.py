"""Golden cases of a kind that no parity test reads: collected, and skipped with that reason."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from parity.cases import ROOT, Case, cases, folders


def read(path: Path) -> Iterator[tuple[str, str]]:
    """What a file of tests asks for, as letters and kinds: `cases("BE", config_kind="dit")`, or `cases("C")`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cases":
            given = [word.value for word in node.keywords if word.arg == "config_kind"]
            kinds = ast.literal_eval(given[0]) if given else ""
            for letter in ast.literal_eval(node.args[0]):
                yield from ((letter, kind) for kind in ((kinds,) if isinstance(kinds, str) else kinds))


READ = {
    found
    for path in Path(__file__).parent.glob("test_*.py")
    if path.name != Path(__file__).name
    for found in read(path)
}


def unread() -> list:
    letters = sorted({path.name[0] for path in ROOT.iterdir() if path.is_dir()}) if ROOT.is_dir() else []
    kinds = {(letter, case.kind) for letter in letters for case in folders(letter)}
    return [
        parameter
        for letter, kind in sorted(kinds)
        if not {(letter, kind), (letter, "")} & READ
        for parameter in cases(letter, config_kind=kind, skip=f"no test reads golden cases of kind {kind}")
    ]


@pytest.mark.parametrize(("case", "run"), unread())
def test_a_kind_that_no_test_reads(case: Case, run: str) -> None:
    raise AssertionError(f"{case.name}: this kind needs a parity test of its own")


def test_letters_and_kinds_are_told_from_the_source(tmp_path: Path) -> None:
    asked = """cases("BE", config_kind=("x", "y")); cases("D"); cases("A", optional=True, config_kind="z")"""
    (tmp_path / "test_it.py").write_text(asked)
    wanted = {("B", "x"), ("B", "y"), ("E", "x"), ("E", "y"), ("D", ""), ("A", "z")}
    assert set(read(tmp_path / "test_it.py")) == wanted


def test_a_case_is_told_by_its_kind_whatever_its_letter(tmp_path: Path, monkeypatch) -> None:
    """Cases that nobody here has seen: another letter, no kind at all, null for what is left out."""
    for name, config in {
        "E3_x": {"kind": "diffusers_transformer", "runs": {"base": {"scalars": None}}, "vae_config": None},
        "E9_y": {"runs": {"only": {}}},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("parity.cases.ROOT", tmp_path)
    (found,) = cases("BE", config_kind=("dit", "diffusers_transformer"))
    case, run = found.values
    assert found.id == "E3_x-base" and case.scalars(run) == case.vae_config == {}
    assert [one.id for one in cases("E")] == ["E3_x-base", "E9_y-only"]
    assert cases("C", optional=True) == [] and cases("C")[0].id == "no-C"


def test_the_kinds_of_every_package_are_read() -> None:
    """The search above finds what the tests ask for; a kind that loses its test shows here."""
    assert {"dit", "i2v_dit", "avatar_loop", "foley_dit", "dac_vae", "foley_scheduler", "hifigan"} <= {
        kind for _, kind in READ
    }
