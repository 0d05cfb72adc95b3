"""Files stay small and hold one subject each."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
MEDIAN, LARGE = 130, 350


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_median_file_is_short():
    assert statistics.median(lines(path) for path in SOURCES) < MEDIAN


def test_a_large_file_says_why_it_is_one_subject():
    """Over 350 lines, the module's docstring has a sentence with "one subject"."""
    silent = [
        f"{path.relative_to(ROOT)}: {lines(path)} lines"
        for path in SOURCES
        if lines(path) > LARGE
        and "one subject" not in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    ]
    assert not silent, "split these files, or say in their docstrings why each is one subject"
