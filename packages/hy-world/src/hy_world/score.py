"""How often clips show what was asked for, beside what chance and a perfect generator would score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from hy_world.captions import Caption
from hy_world.judge import Verdict
from hy_world.scene import Scene

ATTRIBUTES = ("colour", "shape", "size", "motion", "background", "alone", "all")
MOST_STRAY = 0.05  # more of it is a further thing; real clips of 28 dB have none
_SHIFTS = 50  # ways to deal the prompts to the wrong clips, for the base rate


@dataclass(frozen=True)
class Share:
    """So many right of so many."""

    right: int
    total: int

    @property
    def rate(self) -> float:
        """Return right / total; NaN for none."""
        return self.right / self.total if self.total else math.nan

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Return the Wilson score interval (E. B. Wilson, 1927) at 95% for the default `z`."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.rate
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        # Rounding must not put the rate itself outside.
        return max(0.0, min(p, (middle - spread) / scale)), min(1.0, max(p, (middle + spread) / scale))


@dataclass(frozen=True)
class Line:
    """One attribute: how often it came out right, and how often it does by chance and on real renders."""

    attribute: str
    made: Share
    base: float
    real: Share


def match(verdict: Verdict, scene: Scene) -> Verdict:
    """Return the verdict with its things in the order of the scene's, by most attributes in common."""

    def common(things: tuple[Any, ...]) -> float:
        return sum(
            (seen.colour == thing.colour) * 1.5
            + (seen.shape == thing.shape)
            + (seen.size == thing.size)
            + (seen.motion == thing.motion)
            for seen, thing in zip(things, scene.things, strict=True)
        )

    return replace(verdict, things=max(permutations(verdict.things), key=common))


def right(verdict: Verdict, scene: Scene, stated: Caption) -> dict[str, list[bool]]:
    """Say for each attribute which of its statements came true.

    "alone" is true when there is nothing else in the clip, "all" when everything is as stated.
    """
    seen = match(verdict, scene).things
    results: dict[str, list[bool]] = {
        name: [
            getattr(one, name) == getattr(thing, name)
            for one, thing, said in zip(seen, scene.things, stated.stated, strict=True)
            if name in said
        ]
        for name in ("colour", "shape", "size", "motion")
    }
    results["background"] = [verdict.background == scene.background] if stated.background else []
    results["alone"] = [verdict.stray < MOST_STRAY]
    results["all"] = [all(ok for values in results.values() for ok in values)]
    return results


def score(
    verdicts: Sequence[Verdict],
    real: Sequence[Verdict],
    scenes: Sequence[Scene],
    stated: Sequence[Caption],
) -> list[Line]:
    """Count what came true in clips made from the captions, by chance, and in real renders.

    The base rate holds each clip against other clips' prompts: what a generator scores that makes the same
    clips but reads no prompt.
    """
    count = len(scenes)
    made, truth = _tally(verdicts, scenes, stated), _tally(real, scenes, stated)
    chance = {name: Share(0, 0) for name in ATTRIBUTES}
    for dealt in _deals(count):
        wrong = _tally(verdicts, [scenes[i] for i in dealt], [stated[i] for i in dealt])
        for name, share in wrong.items():
            chance[name] = Share(chance[name].right + share.right, chance[name].total + share.total)
    return [Line(name, made[name], chance[name].rate, truth[name]) for name in ATTRIBUTES if made[name].total]


def compare(
    attribute: str, count: int, holds: Callable[[int, int], list[bool]], real: Sequence[bool]
) -> Line:
    """Count what holds of clips: `holds(clip, scene)` says it of a clip as if it were made for a scene.

    The base rate is that of clips against other clips' scenes, as in `score`.
    """
    made = [value for index in range(count) for value in holds(index, index)]
    wrong = [
        value for dealt in _deals(count) for index in range(count) for value in holds(index, dealt[index])
    ]
    return Line(attribute, _share(made), _share(wrong).rate, _share(real))


def _share(values: Sequence[bool]) -> Share:
    return Share(sum(values), len(values))


def _deals(count: int) -> Iterator[list[int]]:
    """Ways to give every clip another clip's scene."""
    for shift in range(1, count) if count <= _SHIFTS else range(1, count, count // _SHIFTS):
        yield [(index + shift) % count for index in range(count)]


def _tally(
    verdicts: Sequence[Verdict], scenes: Sequence[Scene], stated: Sequence[Caption]
) -> dict[str, Share]:
    results: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for verdict, scene, words in zip(verdicts, scenes, stated, strict=True):
        for name, values in right(verdict, scene, words).items():
            results[name] += values
    return {name: _share(values) for name, values in results.items()}
