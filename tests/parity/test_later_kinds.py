"""Golden cases of a kind that no parity test reads: collected, and skipped with that reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from parity.cases import ROOT, Case, cases, folders

#: What the tests beside this one read: `cases("G", config_kind="dac_vae")`, or all of a letter, `cases("C")`.
READ = {
    found
    for path in Path(__file__).parent.glob("test_*.py")
    for found in re.findall(r'cases\("(\w)"(?:, config_kind="(\w+)")?\)', path.read_text(encoding="utf-8"))
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


def test_the_kinds_of_every_package_are_read() -> None:
    """The search above finds what the tests ask for; a kind that loses its test shows here."""
    assert {"dit", "i2v_dit", "avatar_loop", "foley_dit", "dac_vae", "foley_scheduler", "hifigan"} <= {
        kind for _, kind in READ
    }
