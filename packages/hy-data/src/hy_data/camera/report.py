"""What was measured of a classifier, as tables of a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_SHORT = {"left": "l", "right": "r", "up": "u", "down": "d", "in": "in", "out": "out", "shot": ""}


def print_report(report: dict[str, Any]) -> None:
    """Print the accuracies of all tests and the confusion matrix of the first."""
    console = Console()
    table = Table(
        "test", "clips", "right", "p >= 0.7", "right of those", "p >= 0.8", "right of those", "CPU per clip"
    )
    for name, one in report["tests"].items():
        sure = [text for level in ("0.7", "0.8") for text in _level(one["levels"][level])]
        table.add_row(
            name,
            str(one["total"]),
            f"{one['accuracy']:.1%}",
            *sure,
            f"{one['cpu_ms']:.0f} ms",
        )
    console.print(table)
    for name, one in list(report["tests"].items())[:1]:
        matrix = Table("truth", *map(short, report["classes"]), title=f"{name}: answers")
        for truth, row in zip(report["classes"], one["confusion"], strict=True):
            matrix.add_row(truth, *(str(count) if count else "" for count in row))
        console.print(matrix)


def _level(level: dict[str, float | None]) -> tuple[str, str]:
    return f"{level['kept']:.1%}", "" if level["accuracy"] is None else f"{level['accuracy']:.1%}"


def short(name: str) -> str:
    """Return a class in a few letters, such as "pan l"."""
    kind, _, way = name.partition(" ")
    return f"{kind} {_SHORT[way]}".strip()
