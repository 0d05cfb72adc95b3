"""The task `audio`: does the sound made for a clip hit when the thing hits, as what it is, and else keep still?

The plugin is the one that the command line names. It must set the sound of a finished clip (`Conditioner.finish`).
Clips are real renders of held-out scenes, whose lengths and rates differ, so that the moments of impact can't be
guessed; or generated ones, of one length and rate, held against the scene that their prompt tells of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from hy_core.errors import HyError

from hy_world.listen import Heard, hear, listen, score_heard
from hy_world.render import render
from hy_world.report import Report
from hy_world.scene import FPS, Scene, Thing
from hy_world.score import Line
from hy_world.sound import impacts
from hy_world.text_to_video import TITLES, draw

if TYPE_CHECKING:
    from hy_core.request import Result

    from hy_world.tasks import EvalRequest

_RATES = (6.0, 16.0)  # frames a second of real renders
_LONGER = 2  # they have up to so many times the frames asked for


def measure(asked: EvalRequest) -> Iterator[Report]:
    """Yield a report for each group of prompts."""
    for group in asked.groups:
        shape = asked.frames, asked.height, asked.width
        scenes, stated = draw(group, asked.count, asked.seed, *shape, asked.objects)
        prompts = [words.text for words in stated]
        if asked.generated:
            frames, fps = [asked.frames] * asked.count, [FPS] * asked.count
            results = asked.results(prompts, [{}] * asked.count)
        else:
            frames, fps = timing(asked)
            results = _renders(asked, scenes, prompts, frames, fps)
        clips, made = [], []
        for result in results:
            clips.append(np.asarray(result.frames)[: asked.frames])
            made.append(_heard(result))
        yield _report(asked, group, scenes, prompts, frames, fps, clips, made)


def timing(asked: EvalRequest) -> tuple[list[int], list[float]]:
    """Frames and rate of each real render."""
    rng = np.random.default_rng((asked.seed, 11))
    most = (_LONGER - 1) * asked.frames // 4
    frames = [asked.frames + 4 * int(rng.integers(most + 1)) for _ in range(asked.count)]
    return frames, [round(float(rng.uniform(*_RATES)), 2) for _ in range(asked.count)]


def _renders(
    asked: EvalRequest,
    scenes: Sequence[Scene],
    prompts: Sequence[str],
    frames: Sequence[int],
    fps: Sequence[float],
) -> Iterator[Result]:
    """Give real clips of the scenes to the plugin, as if they had just been made."""
    from hy_core.request import Result

    plugin = asked.plugin()
    for index, (scene, prompt, count, rate) in enumerate(zip(scenes, prompts, frames, fps, strict=True)):
        request = replace(asked.request(prompt, index), frames=count, fps=rate)
        plugin.validate(request)
        result = Result(render(scene, count, asked.height, asked.width), rate, request=request)
        plugin.finish(request, result)
        asked.advance(1)
        yield result


def _heard(result: Result) -> Heard:
    if result.sound is None:
        raise HyError("the plugin made no sound", "name one that does with --plugin")
    return listen(result.sound.samples, result.sound.rate)


def _report(
    asked: EvalRequest,
    group: str,
    scenes: Sequence[Scene],
    prompts: list[str],
    frames: Sequence[int],
    fps: Sequence[float],
    clips: list[np.ndarray],
    made: Sequence[Heard],
) -> Report:
    real = hear(scenes, frames, fps, asked.seed)
    lines = score_heard(scenes, made, real, frames, fps)
    lines += _among(scenes, made, real, frames, fps)
    kind = "generated clips" if asked.generated else "real clips"
    note = (
        "impact is the F1 of onsets within 80 ms, by chance that of the sounds of other clips; "
        "impact, bouncing is the same among clips in which something hits the floor"
    )
    extra = {"generated": asked.generated, "impacts": sum(map(len, _hits(scenes, frames, fps)))}
    return Report(group, f"sound of {kind}, {TITLES[group]}", lines, extra, note, prompts, clips)


def _among(
    scenes: Sequence[Scene],
    made: Sequence[Heard],
    real: Sequence[Heard],
    frames: Sequence[int],
    fps: Sequence[float],
) -> list[Line]:
    """Impacts of those clips alone that have some: here a sound of another clip is wrong in its moments only."""
    chosen = [index for index, hits in enumerate(_hits(scenes, frames, fps)) if hits]
    if len(chosen) < 2:
        return []
    lines = score_heard(
        [scenes[index] for index in chosen],
        [made[index] for index in chosen],
        [real[index] for index in chosen],
        [frames[index] for index in chosen],
        [fps[index] for index in chosen],
    )
    return [replace(line, attribute="impact, bouncing") for line in lines if line.attribute == "impact"]


def _hits(
    scenes: Sequence[Scene], frames: Sequence[int], fps: Sequence[float]
) -> list[list[tuple[float, Thing]]]:
    return [impacts(*clip) for clip in zip(scenes, frames, fps, strict=True)]
