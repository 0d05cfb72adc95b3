"""Tables of a classifier's report: how often it is right in each test, and the first test's confusion matrix."""

from __future__ import annotations

from typing import Any


def tests_table(report: dict[str, Any], command: str, source: str) -> str:
    """Return Markdown tables of a report that `hy data camera eval --json` wrote."""
    tests: dict[str, Any] = report["tests"]
    levels = ("0.7", "0.8")
    heads = [f"p >= {level} | Right of those" for level in levels]
    rows = [f"| Clips | Number | Right | {' | '.join(heads)} |", "| --- |" + " ---: |" * 6]
    for name, one in tests.items():
        scenes = [f"{scene} {share(part)}" for scene, part in one["scenes"].items()]
        about = f"{name} ({', '.join(scenes)})" if len(scenes) > 1 else name
        sure = [one["levels"][level] for level in levels]
        cells = [
            f"{part['kept']:.1%} | " + ("" if part["accuracy"] is None else f"{part['accuracy']:.1%}")
            for part in sure
        ]
        rows.append(f"| {about} | {one['total']} | {one['accuracy']:.1%} | {' | '.join(cells)} |")
    name, first = next(iter(tests.items()))
    rows += [
        "",
        f'Answers to clips of the test "{name}", without a least confidence; rows are the truth:',
        "",
    ]
    heads = [short(one) for one in report["classes"]]
    rows += [f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for truth, counts in zip(report["classes"], first["confusion"], strict=True):
        rows.append(f"| {truth} | {' | '.join(str(count) if count else '' for count in counts)} |")
    return "\n".join([*rows, "", f"`{command}` ([report as written]({source}))"])


def share(part: dict[str, int]) -> str:
    """Return the share of right answers of a scene, in per cent."""
    return f"{part['right'] / part['total']:.1%}"


def short(name: str) -> str:
    """Return a class in a few letters, such as "pan l"."""
    kind, _, way = name.partition(" ")
    return kind if way == "shot" else f"{kind} {way if kind == 'zoom' else way[0]}"
