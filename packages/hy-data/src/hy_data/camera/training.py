"""Train a classifier of camera motion, and measure one on clips of known motion."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hy_core.data import ClipRecord
from hy_core.errors import HyError, UsageError
from sklearn.ensemble import ExtraTreesClassifier

from hy_data.camera.classes import CLASSES
from hy_data.camera.classifier import VIEW, in_mirror
from hy_data.camera.features import features, upright
from hy_data.camera.forest import Forest, from_sklearn
from hy_data.camera.generator import LabelledClip, Settings, clips
from hy_data.camera.motion import measure_motion
from hy_data.camera.photographs import Photograph
from hy_data.frames import ClipFrames

TRAINING = Settings(slow=0.35, compressed=0.4)
"""What the generator makes for training."""

TESTS = {
    "normal": Settings(),
    "flat scenes": Settings(rooms=0, flat=1),
    "slow, H.264 crf 30": Settings(slow=1, compressed=1, crf=(30,)),
    "slow, H.264 crf 33": Settings(slow=1, compressed=1, crf=(33,)),
}
"""What is measured, on held-out photographs."""

LEVELS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
"""Confidences at which it is counted how many answers are at least as sure, and how many of these are right."""

_SEED_OF_TESTS = 1_000_003  # added, so that no test clip repeats a training clip's path


@dataclass(frozen=True)
class Sample:
    """Features of a clip in its upright mirror, the class there, and the class itself with the kind of scene."""

    values: np.ndarray
    target: str
    label: str
    mirrors: tuple[bool, bool]
    scene: str
    seconds: float


def samples(labelled: Iterable[LabelledClip]) -> Iterator[Sample]:
    """Measure labelled clips; `seconds` is the CPU time of a clip."""
    for clip in labelled:
        begin = time.process_time()
        motion = measure_motion(clip.frames)
        values, mirrors = features(motion), upright(motion)
        spent = time.process_time() - begin
        yield Sample(values, in_mirror(clip.label, mirrors), clip.label, mirrors, clip.scene, spent)


def own_clips(records: Iterable[ClipRecord]) -> Iterator[LabelledClip]:
    """Read clips whose class a manifest states as `camera_motion`; `UsageError` for another word."""
    for record in records:
        label = record.results.get("camera_motion")
        if label not in CLASSES:
            raise UsageError(
                f"{record.path}: camera_motion = {label!r} is no class", f"one of {', '.join(CLASSES)}"
            )
        frames = ClipFrames(record, [VIEW])[VIEW]
        if len(frames) < 2:
            raise HyError(f"{record.path} has one frame", "a clip that shows a motion has at least 2")
        yield LabelledClip(frames, str(label), "own")


def generated(
    photographs: Sequence[Photograph],
    count: int,
    seed: int,
    settings: Settings = TRAINING,
    progress: Callable[[], None] | None = None,
) -> Iterator[Sample]:
    """Make and measure training clips, calling `progress` after each."""
    for sample in samples(clips(photographs, count, seed, settings)):
        yield sample
        if progress:
            progress()


def train(training: Sequence[Sample], trees: int = 200, seed: int = 0) -> Forest:
    """Train a forest (extremely randomized trees, Geurts et al., 2006); `UsageError` for fewer than two classes."""
    targets = [one.target for one in training]
    if len(set(targets)) < 2:
        raise UsageError("the training clips have fewer than two classes of camera motion")
    model = ExtraTreesClassifier(trees, max_features=0.5, random_state=seed, n_jobs=1)
    return from_sklearn(model.fit(np.stack([one.values for one in training]), targets), CLASSES)


def measure(forest: Forest, tested: Sequence[Sample]) -> dict[str, Any]:
    """Return how often the forest is right: counts, shares, and the confusion matrix [truth][answer]."""
    matrix = np.zeros((len(CLASSES), len(CLASSES)), int)
    scenes: dict[str, list[int]] = {}
    answers: list[tuple[float, bool]] = []
    for one in tested:
        shares = forest.probabilities(one.values)
        best = int(shares.argmax())
        answer = in_mirror(forest.classes[best], one.mirrors)
        matrix[CLASSES.index(one.label), CLASSES.index(answer)] += 1
        counts = scenes.setdefault(one.scene, [0, 0])
        counts[0] += answer == one.label
        counts[1] += 1
        answers.append((float(shares[best]), answer == one.label))
    right, total = int(matrix.trace()), len(tested)
    return {
        "total": total,
        "right": right,
        "accuracy": right / total,
        "levels": {f"{level:g}": _sure(answers, level) for level in LEVELS},
        "scenes": {name: {"right": int(r), "total": n} for name, (r, n) in sorted(scenes.items())},
        "confusion": matrix.tolist(),
        "cpu_ms": 1000 * float(np.median([one.seconds for one in tested])),
    }


def _sure(answers: Sequence[tuple[float, bool]], level: float) -> dict[str, float | None]:
    """Return the share of answers that are at least so sure, and of these the share that is right."""
    kept = [is_right for shares, is_right in answers if shares >= level]
    return {"kept": len(kept) / len(answers), "accuracy": sum(kept) / len(kept) if kept else None}


def measure_generated(
    forest: Forest, photographs: Sequence[Photograph], count: int, seed: int
) -> dict[str, Any]:
    """Measure a forest on `count` clips of each of `TESTS`."""
    return {
        name: measure(forest, list(generated(photographs, count, seed + _SEED_OF_TESTS + number, settings)))
        for number, (name, settings) in enumerate(TESTS.items())
    }
