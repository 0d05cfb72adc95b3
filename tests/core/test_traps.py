"""The traps of the core facts that break parity: each is named by a test."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_trap_has_a_test_of_its_name() -> None:
    texts = (path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].glob("*/test_*.py"))
    named = {int(number) for text in texts for number in re.findall(r"^def test_trap_(\d+)_", text, re.M)}
    assert named == set(range(1, 13))
