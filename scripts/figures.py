"""Render the tables of figures in the model cards from the reports in docs/figures.

    python scripts/figures.py            # write the tables
    python scripts/figures.py --check    # fail if a table differs from its reports

A report is the JSON that `hy eval ... --json` printed; docs/figures/tables.toml says which report came from which
command and which lines of it a card shows. Counts of several reports in one section are added. The report of a
classifier is shown with its confusion matrix.
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from pathlib import Path
from typing import Any

from confusion import tests_table
from marked import DOCS, replaced, write_pages

FIGURES = DOCS / "figures"
Group = dict[str, Any]


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share (E. B. Wilson, 1927)."""
    p, scale = right / total, 1 + z * z / total
    middle = p + z * z / (2 * total)
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def percent(value: float | None) -> str:
    """Write a share as per cent, nothing for None."""
    return "" if value is None else f"{100 * value:.1f}%"


def mean(values: list[tuple[float | None, int]]) -> float | None:
    """Return the mean of values with their weights; None if a value is missing."""
    known = [(value, weight) for value, weight in values if value is not None]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if len(known) == len(values) else None


def line(groups: list[Group], attribute: str) -> str:
    """Return the cells of one attribute: right, interval, chance, real renders."""
    found = [group["attributes"][attribute] for group in groups]
    chance = mean([(one["base"], one["total"] or 1) for one in found])
    real = mean([(one["real"], one["total"] or 1) for one in found])
    if any(one["total"] is None for one in found):
        return f"{percent(found[0]['accuracy'])} | | {percent(chance)} | {percent(real)}"
    right, total = (sum(one[key] for one in found) for key in ("right", "total"))
    low, high = wilson(right, total)
    share = f"{percent(right / total)} ({right}/{total})"
    return f"{share} | {100 * low:.1f} to {100 * high:.1f} | {percent(chance)} | {percent(real)}"


def table(sections: list[dict[str, Any]], commands: dict[str, str]) -> str:
    """Return one Markdown table with the list of its commands."""
    numbers: dict[str, int] = {}
    reports: dict[str, dict[str, Any]] = {}
    rows = ["| Task | Measure | Result | 95% interval | By chance | Real renders | Command |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for section in sections:
        wanted = section.get("select", {}).items()
        for name in section["reports"]:
            reports[name] = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
            numbers.setdefault(name, len(numbers) + 1)
        groups = [
            next(group for group in reports[name]["groups"] if wanted <= group.items())
            for name in section["reports"]
        ]
        by = ", ".join(str(numbers[name]) for name in section["reports"])
        for key, label in section.get("values", {}).items():
            value = sum(group[key] for group in groups) / len(groups)
            rows.append(f"| {section['title']} | {label} | {value:.3g} | | | | {by} |")
        for attribute in section["attributes"]:
            rows.append(f"| {section['title']} | {attribute} | {line(groups, attribute)} | {by} |")
    rows.append("")
    for name, number in numbers.items():
        source = f"[report](../figures/{name}.json)"
        rows.append(f"{number}. `{commands[name]}` ({source})")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Write or check all tables."""
    settings = tomllib.loads((FIGURES / "tables.toml").read_text(encoding="utf-8"))
    pages: dict[Path, str] = {}
    for one in settings["table"]:
        path = DOCS / one["page"]
        text = pages.get(path) or path.read_text(encoding="utf-8")
        pages[path] = replaced(text, "figures", table(one["section"], settings["reports"]), one["page"])
    for one in settings.get("classifier", []):
        path, name = DOCS / one["page"], one["report"]
        text = pages.get(path) or path.read_text(encoding="utf-8")
        report = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
        source = f"{'../' * one['page'].count('/')}figures/{name}.json"
        content = tests_table(report, settings["reports"][name], source)
        pages[path] = replaced(text, one.get("part", "figures"), content, one["page"])
    return write_pages(pages, "--check" in arguments, "scripts/figures.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
