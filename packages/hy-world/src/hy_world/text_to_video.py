"""The task `t2v`: does a clip show what its prompt says?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from hy_core.rewrite import rewrite

from hy_world.captions import Caption, caption
from hy_world.judge import Verdict, judge
from hy_world.render import render
from hy_world.report import Report
from hy_world.rewriting.free import free_caption
from hy_world.scene import FRAMES, Scene, sample_scene
from hy_world.score import score

if TYPE_CHECKING:
    from hy_core.rewrite import Rewriter

    from hy_world.tasks import EvalRequest

# What is asked for: (scenes of this split, captions of this wording, captions that leave nothing out).
GROUPS: dict[str, tuple[str, str, bool]] = {
    "combinations": ("heldout", "train", True),
    "wordings": ("train", "heldout", False),
    "unseen": ("train", "unseen", False),
    "train": ("train", "train", False),
    "free": ("train", "free", False),
}
TITLES = {
    "combinations": "held-out combinations",
    "wordings": "held-out wordings",
    "unseen": "verbs never seen",
    "train": "training prompts",
    "free": "free wordings, held out",
}


def measure(asked: EvalRequest) -> Iterator[Report]:
    """Yield a report for each group of prompts."""
    for group in asked.groups:
        yield evaluate(
            asked.make,
            group,
            asked.count,
            asked.seed,
            asked.frames,
            asked.height,
            asked.width,
            asked.objects,
            asked.language,
            asked.rewriter,
        )


def evaluate(
    make: Callable[[list[str]], Iterable[np.ndarray]],
    group: str = "combinations",
    count: int = 200,
    seed: int = 0,
    frames: int = FRAMES,
    height: int = 64,
    width: int = 64,
    objects: int = 1,
    language: str = "en",
    rewriter: Rewriter | None = None,
) -> Report:
    """Judge the clips that `make` yields for the prompts of a group, uint8 [T, H, W, 3], in their order.

    With a rewriter the clips are made of its rewrites, and judged by what the prompts say.
    """
    scenes, stated = draw(group, count, seed, frames, height, width, objects, language)
    prompts = [words.text for words in stated]
    if rewriter is not None:
        prompts = [rewrite(rewriter, prompt).text for prompt in prompts]
    clips = [np.asarray(clip) for clip in make(prompts)]
    seen = [judge(clip, objects) for clip in clips]
    lines = score(seen, real(scenes, frames, height, width), scenes, stated)
    return Report(group, TITLES[group], lines, prompts=prompts, clips=clips)


def draw(
    group: str,
    count: int,
    seed: int,
    frames: int,
    height: int,
    width: int,
    objects: int,
    language: str = "en",
) -> tuple[list[Scene], list[Caption]]:
    """Draw the scenes of a group and their captions; the same for one seed. Free wordings are in `language`."""
    split, wording, full = GROUPS[group]
    rng = np.random.default_rng((seed, list(GROUPS).index(group)))
    scenes = [sample_scene(rng, split, frames, height, width, objects) for _ in range(count)]
    if wording == "free":
        return scenes, [free_caption(rng, scene, language, moving=frames > 1) for scene in scenes]
    return scenes, [caption(rng, scene, frames, wording, full) for scene in scenes]


def real(scenes: Sequence[Scene], frames: int, height: int, width: int) -> list[Verdict]:
    """Judge true clips of the scenes: the judge's own accuracy."""
    return [judge(render(scene, frames, height, width), len(scene.things)) for scene in scenes]
