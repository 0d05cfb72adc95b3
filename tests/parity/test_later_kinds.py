"""Golden cases whose plugin isn't there yet: collected, and skipped with that reason."""

from __future__ import annotations

import pytest
from parity.cases import Case, cases, folders

LATER = {"G": "hy-audio", "H": "hy-audio"}


def later() -> list:
    kinds = {(case.path.name[0], case.kind) for letter in LATER for case in folders(letter)}
    return [
        parameter
        for letter, kind in sorted(kinds)
        for parameter in cases(letter, config_kind=kind, skip=f"comes with {LATER[letter]}")
    ]


@pytest.mark.parametrize(("case", "run"), later())
def test_a_kind_whose_plugin_is_missing(case: Case, run: str) -> None:
    raise AssertionError(
        f"{case.name}: its plugin is registered, so this kind needs a parity test of its own"
    )
