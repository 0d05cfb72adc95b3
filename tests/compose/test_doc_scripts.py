"""The scripts that CI runs on docs and docstrings find what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import figures

    return figures


def missing(path: Path) -> list[str]:
    script = ROOT / "scripts" / "check_docstrings.py"
    run = subprocess.run([sys.executable, str(script), str(path)], capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert run.returncode == bool(lines)
    return [line.rpartition(": ")[2] for line in lines]


def test_a_tensor_without_a_shape_is_listed(tmp_path):
    (tmp_path / "layers.py").write_text(
        '''
from torch import Tensor
import numpy as np

def bare(x: Tensor) -> int:
    """Return the number of rows, a list[int]."""

def shaped(x: Tensor) -> int:
    """Return the number of rows of x [B, F]."""

def array(x: "np.ndarray | None") -> int:
    pass

def count(x: int) -> int:
    pass

def _private(x: Tensor) -> None:
    pass

class Layer:
    """Map [B, C] to [B, D]."""

    def forward(self, x: Tensor) -> Tensor:
        pass

    def change(self, x: Tensor) -> Tensor:
        pass
''',
        encoding="utf-8",
    )
    assert missing(tmp_path) == ["bare", "array", "Layer.change"]


def test_tables_of_the_model_cards_are_what_the_reports_say(figures):
    assert figures.main(["--check"]) == 0


def test_a_changed_figure_is_found(figures, monkeypatch, capsys):
    real = figures.line
    monkeypatch.setattr(figures, "line", lambda groups, name: real(groups, name).replace("85.7%", "95.7%"))
    assert figures.main(["--check"]) == 1
    assert "models/pocket.md: out of date" in capsys.readouterr().err


def test_counts_of_several_reports_are_added(figures):
    one = {"attributes": {"shape": {"right": 3, "total": 4, "accuracy": 0.75, "base": 0.2, "real": 1.0}}}
    assert figures.line([one, one], "shape") == "75.0% (6/8) | 40.9 to 92.9 | 20.0% | 100.0%"


def test_the_report_of_a_classifier_is_a_table_with_its_confusion_matrix(figures):
    levels = {"0.7": {"kept": 0.8, "accuracy": 1.0}, "0.8": {"kept": 0.0, "accuracy": None}}
    scenes = {"flat": {"right": 1, "total": 2}, "room": {"right": 3, "total": 3}}
    test = {"total": 5, "accuracy": 0.8, "levels": levels, "scenes": scenes, "confusion": [[3, 1], [0, 1]]}
    report = {"classes": ["zoom in", "static shot"], "tests": {"normal": test}}
    lines = figures.tests_table(report, "hy data camera eval", "../figures/x.json").splitlines()
    assert "| normal (flat 50.0%, room 100.0%) | 5 | 80.0% | 80.0% | 100.0% | 0.0% |  |" in lines
    assert lines[-5:-2] == ["| --- | ---: | ---: |", "| zoom in | 3 | 1 |", "| static shot |  | 1 |"]
    assert "| | zoom in | static |" in lines and lines[-1].endswith(
        "([report as written](../figures/x.json))"
    )
