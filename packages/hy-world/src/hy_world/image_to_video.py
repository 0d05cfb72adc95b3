"""The task `i2v`: does a clip start from the given picture, follow the prompt, and end at the given last picture?

The plugin is the one that the command line names. It must take the options `image` and `last`, pictures that a clip
begins and ends with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hy_world.captions import Caption
from hy_world.codec import coded, psnr
from hy_world.judge import Verdict, judge, position_errors
from hy_world.render import render
from hy_world.report import Report
from hy_world.scene import Scene
from hy_world.score import Line, compare, match, score
from hy_world.text_to_video import TITLES, draw

if TYPE_CHECKING:
    from hy_world.tasks import EvalRequest

NEAR = 0.5  # dB that a decoded first frame may be worse than the VAE alone
CLOSE = 6 / 64  # of the frame's shorter side: as far may a thing be from its place in the middle of a clip


def measure(asked: EvalRequest) -> Iterator[Report]:
    """Yield two reports for each group of prompts: the first frame given; the first and the last given."""
    for group in asked.groups:
        shape = asked.frames, asked.height, asked.width
        scenes, stated = draw(group, asked.count, asked.seed, *shape, asked.objects)
        truth = [render(scene, *shape) for scene in scenes]
        seen = [judge(clip, asked.objects) for clip in truth]
        with tempfile.TemporaryDirectory() as folder:
            firsts = [_save(clip[0], Path(folder) / f"{i}-first.png") for i, clip in enumerate(truth)]
            lasts = [_save(clip[-1], Path(folder) / f"{i}-last.png") for i, clip in enumerate(truth)]
            prompts = [words.text for words in stated]
            clips = list(asked.make(prompts, [{"image": first} for first in firsts]))
            yield _first(asked, group, scenes, stated, truth, seen, clips)
            pairs = zip(firsts, lasts, strict=True)
            clips = list(asked.make(prompts, [{"image": first, "last": last} for first, last in pairs]))
            yield _ends(asked, group, scenes, stated, seen, clips)


def _first(
    asked: EvalRequest,
    group: str,
    scenes: Sequence[Scene],
    stated: Sequence[Caption],
    truth: Sequence[np.ndarray],
    real: Sequence[Verdict],
    clips: Sequence[np.ndarray],
) -> Report:
    """Judge clips of which the first frame was given."""
    pictures = [clip[:1] for clip in truth]
    assert asked.model is not None
    alone = [psnr(coded(asked.model.vae, one[None])[0], one) for one in pictures]
    made = [psnr(clip[:1], picture) for clip, picture in zip(clips, pictures, strict=True)]
    away = [one - other for one, other in zip(made, alone, strict=True)]

    def near(clip: int, scene: int) -> list[bool]:
        return [psnr(clips[clip][:1], pictures[scene]) >= alone[scene] - NEAR]

    first = compare(
        "first frame", len(clips), near, [True] * len(clips)
    )  # the VAE alone is the measure itself
    verdicts = [judge(clip, asked.objects) for clip in clips]
    figures = {
        "first_psnr": float(np.mean(made)),
        "codec_psnr": float(np.mean(alone)),
        "difference": float(np.mean(away)),
        "worst_difference": float(np.min(away)),
    }
    note = (
        f"first frame: {figures['first_psnr']:.2f} dB, by the VAE alone {figures['codec_psnr']:.2f} dB; "
        f"difference {figures['difference']:+.2f} dB, at worst {figures['worst_difference']:+.2f} dB. "
        f"Right is a first frame at most {NEAR} dB worse."
    )
    return Report(
        group,
        f"{TITLES[group]}, first frame given",
        [first, *score(verdicts, real, scenes, [_whole(words) for words in stated])],
        {"given": "first", **figures},
        note,
        [words.text for words in stated],
        list(clips),
    )


def _ends(
    asked: EvalRequest,
    group: str,
    scenes: Sequence[Scene],
    stated: Sequence[Caption],
    real: Sequence[Verdict],
    clips: Sequence[np.ndarray],
) -> Report:
    """Judge clips of which the first and the last frame were given."""
    verdicts = [judge(clip, asked.objects) for clip in clips]
    limit = CLOSE * min(asked.height, asked.width)
    moves = [_way(scene, asked) >= limit for scene in scenes]
    going = [index for index, moved in enumerate(moves) if moved]

    def lines() -> Iterator[Line]:
        for name, chosen in (("middle", range(len(clips))), ("middle, moved", going)):
            if not chosen:
                continue

            def holds(clip: int, scene: int, at: Sequence[int] = chosen) -> list[bool]:
                return [_error(verdicts[at[clip]], scenes[at[scene]], asked) < limit]

            yield compare(
                name,
                len(chosen),
                holds,
                [_error(real[index], scenes[index], asked) < limit for index in chosen],
            )

    errors = [_error(verdict, scene, asked) for verdict, scene in zip(verdicts, scenes, strict=True)]
    stood = 1 - len(going) / len(clips)
    note = (
        f"middle: the thing is less than {limit:g} pixels from its place in the middle frame; clips that stand "
        f"still would be right in {stood:.1%}, and in none of those of 'middle, moved'."
    )
    finite = [error for error in errors if np.isfinite(error)]
    figures = {
        "limit": limit,
        "median_error": float(np.median(finite)) if finite else None,
        "still": stood,
    }
    return Report(
        group,
        f"{TITLES[group]}, first and last frame given",
        [*lines(), *score(verdicts, real, scenes, [_whole(words) for words in stated])],
        {"given": "first and last", **figures},
        note,
        [words.text for words in stated],
        list(clips),
    )


def _error(verdict: Verdict, scene: Scene, asked: EvalRequest) -> float:
    """How far the thing, or the worse of two, is from its place in the middle frame; inf if it isn't seen."""
    errors = position_errors(match(verdict, scene), scene, asked.height, asked.width)[:, asked.frames // 2]
    return float(np.nan_to_num(errors, nan=np.inf).max())


def _way(scene: Scene, asked: EvalRequest) -> float:
    """How far a thing of the scene, or the one that goes farther, is from its start in the middle frame."""
    middle = asked.frames // 2
    tracks = scene.tracks(asked.frames, asked.height, asked.width)
    return max(float(np.hypot(t.x[middle] - t.x[0], t.y[middle] - t.y[0])) for t in tracks)


def _whole(words: Caption) -> Caption:
    """A caption with all that the picture shows: what isn't said must be kept too. Motion is only in words."""
    shown = frozenset({"colour", "shape", "size"})
    return replace(words, stated=tuple(said | shown for said in words.stated), background=True)


def _save(frame: np.ndarray, path: Path) -> Path:
    from PIL import Image

    Image.fromarray(frame).save(path)
    return path
