"""Hold clips of characters against what drove them: mouths, expressions, identity, joints, calm elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from hy_core.errors import UsageError

from hy_world.characters import Character, Stage
from hy_world.characters_geometry import Truth, truth
from hy_world.characters_judge import SeenCharacter, judge_stage
from hy_world.score import Share

JOINT_LIMIT = 0.1  # of body height
LOOK = ("skin", "hair", "style", "face", "shirt", "trousers")
_LIMBS = slice(5, 17)  # shoulders to ankles: joints that the body moves


def mouth_correlation(seen: SeenCharacter, opening: np.ndarray) -> float:
    """Return Pearson's correlation of the mouth with the openings [T] that drove it.

    0 when the mouth doesn't move; NaN when nothing drove it or most frames show no face.
    """
    there = ~np.isnan(seen.mouth)
    if there.mean() < 0.5 or np.std(opening[there]) < 1e-3:
        return math.nan
    mouth, driver = seen.mouth[there], opening[there]
    return float(np.corrcoef(mouth, driver)[0, 1]) if np.std(mouth) > 1e-3 else 0.0


def identity(seen: SeenCharacter, character: Character, framing: str) -> dict[str, bool]:
    """Say which parts of the look are kept; a close-up shows no trousers."""
    parts = LOOK[:-1] if framing == "face" else LOOK
    return {name: getattr(seen.look, name) == getattr(character.look, name) for name in parts}


def joint_errors(seen: SeenCharacter, real: Truth, framing: str) -> np.ndarray:
    """Return how far each limb joint is off, [T, 12] in body heights: shoulders to ankles.

    inf for a joint that should be seen and isn't, NaN for one that can't be: outside the frame, below the
    hips of an upper body, all of a close-up.
    """
    error = np.linalg.norm(seen.joints - real.joints, axis=-1)[:, _LIMBS] / real.body_height
    wanted = real.visible[:, _LIMBS].copy()
    if framing == "face":
        wanted[:] = False
    elif framing == "upper":
        wanted[:, 6:] = False
    return np.where(wanted, np.where(np.isnan(error), np.inf, error), np.nan)


def change(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return how much two clips [T, H, W, 3] differ inside and outside of a mask [T, H, W] in 0..1.

    Mean absolute differences of uint8 values.
    """
    if one.shape != other.shape or mask.shape != one.shape[:-1]:
        raise UsageError(f"clips {one.shape} and {other.shape} and mask {mask.shape} don't fit together")
    difference = np.abs(one.astype(np.float64) - other).mean(-1)
    inside, outside = mask.sum(), (1 - mask).sum()
    return (
        float((difference * mask).sum() / max(inside, 1e-9)),
        float((difference * (1 - mask)).sum() / max(outside, 1e-9)),
    )


@dataclass(frozen=True)
class CharacterScore:
    """How clips follow their drivers. `shuffled` holds the same clips against other clips' speech."""

    correlation: float  # mean over characters whose speech isn't silent
    shuffled: float
    expression: Share  # clips whose one expression is right
    identity: Share  # characters with every visible part of the look kept
    joints: Share  # visible limb joints within a tenth of body height
    background: Share


def score_stages(videos: Sequence[np.ndarray], stages: Sequence[Stage]) -> CharacterScore:
    """Judge clips uint8 [T, H, W, 3] that should show these stages."""
    seen: list[SeenCharacter] = []
    openings: list[np.ndarray] = []
    expressions: list[bool] = []
    kept: list[bool] = []
    places: list[bool] = []
    near, looked = 0, 0
    for video, stage in zip(videos, stages, strict=True):
        height, width = video.shape[1:3]
        judged = judge_stage(video, stage.framing, len(stage.characters))
        real = truth(stage, height, width)
        places.append(judged[0].background == stage.background)
        for one, fact, character in zip(judged, real, stage.characters, strict=True):
            seen.append(one)
            openings.append(fact.mouth)
            kept.append(all(identity(one, character, stage.framing).values()))
            if len(set(fact.expressions)) == 1:
                expressions.append(one.expression == fact.expressions[0])
            errors = joint_errors(one, fact, stage.framing)
            near += int((errors <= JOINT_LIMIT).sum())
            looked += int((~np.isnan(errors)).sum())
    return CharacterScore(
        _mean(mouth_correlation(*pair) for pair in zip(seen, openings, strict=True)),
        _mean(
            mouth_correlation(one, openings[(index + shift) % len(seen)])
            for shift in range(1, min(len(seen), 6))
            for index, one in enumerate(seen)
            if len(openings[(index + shift) % len(seen)]) == len(one.mouth)
        ),
        Share(sum(expressions), len(expressions)),
        Share(sum(kept), len(kept)),
        Share(near, looked),
        Share(sum(places), len(places)),
    )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
