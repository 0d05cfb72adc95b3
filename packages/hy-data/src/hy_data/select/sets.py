"""Sets of a recipe: sizes, limits and the share to keep, from the tables `[sets.NAME]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hy_core.errors import UsageError
from hy_core.tables import from_table

from hy_data.select.rules import Rule
from hy_data.select.thresholds import Better

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SENSES = ("min", "max", "any", "none", "is", "missing")


@dataclass(frozen=True)
class SetSpec:
    """One training set.

    `height`, `width`, `frames`: what the set is for; clips need that area (their crop's; `enlarge` is the largest
    factor by which a side may be stretched) and that many frames, at `fps` if it is given, else at their own rate.
    `kind` "image" makes a set of pictures: picture files, and `pictures` frames of each clip. `parent`: the set whose
    clips it chooses from ("" for all). `keep`: the share of those within the limits that is kept, by thresholds on
    `scores` at one common quantile. `limits`: fixed rules by column. `better`: the wanted direction, where the stage
    doesn't tell it. `only` and `without`: files that list clip ids, one a line, such as those that people approved.
    """

    name: str
    height: int
    width: int
    frames: int = 1
    fps: float | None = None
    kind: Literal["video", "image"] = "video"
    pictures: int = 1
    parent: str = ""
    keep: float | None = None
    scores: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    better: Mapping[str, Any] = field(default_factory=dict)
    enlarge: float = 1.0
    only: str | None = None
    without: str | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rules whose thresholds are given: size, frames and limits."""
        size = Rule("side", "min", (self.height * self.width) ** 0.5 / self.enlarge)
        frames = (Rule(self.frames_column, "min", self.frames),) if self.kind == "video" else ()
        limits = [rule for score, limit in self.limits.items() for rule in _rules(self.name, score, limit)]
        return (size, *frames, *limits)

    @property
    def frames_column(self) -> str:
        """The column of the numbers of frames at the set's rate."""
        return "frames" if self.fps is None else f"frames at {self.fps:g} fps"


def read_sets(tables: Mapping[str, Any]) -> tuple[SetSpec, ...]:
    """Return the sets of `[sets]` in their order, but each after the one it chooses from.

    `UsageError` names a wrong table or key.
    """
    if not tables:
        raise UsageError("the recipe has no sets", 'add a table such as [sets."256p"]')
    specs = {name: _spec(str(name), table) for name, table in tables.items()}
    ordered: dict[str, SetSpec] = {}
    for name in specs:
        line: list[SetSpec] = []  # from a set to its first ancestor
        while name and name not in ordered:
            if name not in specs:
                raise UsageError(f"[sets.{line[-1].name}] from = {name!r}: there is no such set")
            if specs[name] in line:
                raise UsageError(
                    f"[sets.{name}] from = {specs[name].parent!r}: the sets choose from each other"
                )
            line.append(specs[name])
            name = specs[name].parent
        ordered.update((spec.name, spec) for spec in reversed(line))
    return tuple(ordered.values())


def _spec(name: str, table: Any) -> SetSpec:
    where = f"[sets.{name}]"
    if not _NAME.fullmatch(name):
        raise UsageError(f"[sets.{name[:40]!r}]: a set's name has letters, digits and . _ - only")
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is not a table")
    values = {"parent" if key == "from" else key: value for key, value in table.items() if key != "parent"}
    if "name" in table or "parent" in table:
        raise UsageError(
            f"{where}: unknown key {'name' if 'name' in table else 'parent'}", "the set is [sets.NAME]"
        )
    spec: SetSpec = from_table(SetSpec, {"name": name, **values}, where)
    for key in ("height", "width", "frames", "pictures", "fps", "enlarge"):
        if getattr(spec, key) is not None and not getattr(spec, key) > 0:
            raise UsageError(f"{where} {key} = {getattr(spec, key)}: needs more than 0")
    if spec.keep is not None and not 0 < spec.keep <= 1:
        raise UsageError(f"{where} keep = {spec.keep:g}: needs a share above 0, at most 1")
    if (spec.keep is None) != (not spec.scores):
        missing, there = ("scores", "keep") if spec.keep is not None else ("keep", "scores")
        raise UsageError(f"{where} has {there} but no {missing}", 'such as keep = 0.5, scores = ["motion"]')
    for score, better in spec.better.items():
        if better not in ("high", "low"):
            raise UsageError(f'{where} better.{score} = {better!r}: needs "high" or "low"')
    if spec.kind == "image" and spec.frames != 1:
        raise UsageError(f"{where} frames = {spec.frames}: a set of images has 1")
    _ = spec.rules  # checks the limits
    return spec


def _rules(name: str, score: str, limit: Any) -> list[Rule]:
    where = f"[sets.{name}] limits.{score}"
    if not isinstance(limit, Mapping) or not limit.keys() <= set(_SENSES) or not limit.keys() - {"missing"}:
        raise UsageError(
            f"{where} = {limit!r}"[:120], "such as {min = 1, max = 5}, {any = [...]} or {is = true}"
        )
    missing = limit.get("missing", "drop")
    if missing not in ("drop", "keep"):
        raise UsageError(f'{where}.missing = {missing!r}: needs "drop" or "keep"')
    keep, rules = missing == "keep", []
    for sense, value in limit.items():
        if sense in ("min", "max"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{where}.{sense} = {value!r}: needs a number")
            rules.append(Rule(score, sense, float(value), keep_missing=keep))
        elif sense in ("any", "none"):
            if not isinstance(value, list | tuple) or not value:
                raise UsageError(f"{where}.{sense} = {value!r}: needs a list")
            rules.append(Rule(score, sense, choices=tuple(map(_text, value)), keep_missing=keep))
        elif sense == "is":
            if not isinstance(value, bool):
                raise UsageError(f"{where}.is = {value!r}: needs true or false")
            rules.append(Rule(score, "any", choices=(_text(value),), keep_missing=keep))
    return rules


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def direction(spec: SetSpec, score: str, stated: str | None) -> Better:
    """Return which values of a score the set wants: by its own table, else as its stage states."""
    better = spec.better.get(score, stated)
    if better == "high" or better == "low":
        return better
    raise UsageError(
        f"[sets.{spec.name}] scores: which values of {score} are wanted isn't known",
        f'add better = {{{score} = "high"}} or "low" to the set, or use limits',
    )
