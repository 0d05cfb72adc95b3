"""The reference cases are required wherever the shared folder lies beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from parity.cases import ROOT, Case
from parity.test_later_kinds import READ

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.mark.skipif(
    not SHARED.is_dir() and "HY_GOLDEN" not in os.environ,
    reason="no reference cases here: neither ../shared nor HY_GOLDEN",
)
def test_reference_cases_are_found_and_read() -> None:
    """A moved or empty folder of reference cases fails instead of skipping every parity test."""
    assert ROOT.is_dir(), f"no reference cases in {ROOT}"
    found = [Case(path) for path in sorted(ROOT.iterdir()) if (path / "config.json").is_file()]
    assert any({(case.name[0], case.kind), (case.name[0], "")} & READ for case in found), (
        f"no parity test reads any of the {len(found)} cases in {ROOT}"
    )
