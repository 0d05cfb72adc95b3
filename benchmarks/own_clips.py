"""Own clips: does `hy train lora` teach a shape that the world lacks, and does the model keep what it knew?

    python benchmarks/own_clips.py make my-hearts/          40 clips of hearts, with captions
    hy train lora my-hearts/ -o runs/hearts
    python benchmarks/own_clips.py score --lora runs/hearts/export/my-hearts-lora.safetensors

`score` prints how often clips of held-out prompts (colours, motions and backgrounds that no clip had together) show a
heart, with the base and with the adapter; and the accuracies of both on the world's own prompts. The judge is
`hy_world.judge` with the heart among its shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from hy_core import media
from hy_core.session import Session
from hy_world import judge as judging
from hy_world import render as rendering
from hy_world import scene as scenes
from hy_world.captions import caption
from hy_world.scene import FPS, FRAMES, Scene, sample_scene
from hy_world.tasks import EvalRequest
from hy_world.text_to_video import evaluate

HEART, _LIKE = "heart", "square"
_FINE = 4  # samples of a pixel's side
_CENTRE = 0.2935  # of the outline's mass, above its origin


def heart_coverage(dx: np.ndarray, dy: np.ndarray, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """How much of each pixel a heart covers: (x^2 + y^2 - 1)^3 < x^2 y^3, centred on its mass; all broadcast."""
    offsets = (np.arange(_FINE) + 0.5) / _FINE - 0.5
    total: Any = 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    for right in offsets:
        for down in offsets:
            x, y = dx + right, dy + down
            x, y = (x * cos + y * sin) / radius, (y * cos - x * sin) / radius
            x, y = x, _CENTRE - y
            total = total + ((x * x + y * y - 1) ** 3 < x * x * y**3)
    return np.asarray(total / _FINE**2, np.float32)


@contextmanager
def hearts() -> Iterator[None]:
    """Add the heart to what the world draws and judges, for a while."""
    own: Callable[..., np.ndarray] = rendering.coverage

    def coverage(shape: str, dx: Any, dy: Any, radius: Any, angle: Any) -> np.ndarray:
        return heart_coverage(dx, dy, radius, angle) if shape == HEART else own(shape, dx, dy, radius, angle)

    shapes = judging.SHAPES
    scenes.EXTENT[HEART] = 1.3
    rendering.coverage = judging.coverage = coverage
    judging._AREA[HEART] = judging._area(HEART)
    judging.SHAPES = (*shapes, HEART)
    try:
        yield
    finally:
        rendering.coverage = judging.coverage = own
        judging.SHAPES = shapes
        del judging._AREA[HEART], scenes.EXTENT[HEART]


def draw(seed: int, count: int, without: Sequence[Scene] = ()) -> tuple[list[Scene], list[str]]:
    """Draw scenes of one heart each and their captions; none has colour, motion and background of one `without`."""
    rng, taken = np.random.default_rng(seed), {_kind(one) for one in without}
    found, texts = [], []
    while len(found) < count:
        scene = sample_scene(rng, "all", objects=1)
        (thing,) = scene.things
        if thing.shape != _LIKE or thing.motion == "spin" or _kind(scene) in taken:
            continue
        text = caption(rng, scene, full=True).text
        for word in ("square", "box", "Square", "Box"):
            text = text.replace(word, HEART)
        found.append(replace(scene, things=(replace(thing, shape=HEART),)))
        texts.append(text)
    return found, texts


def _kind(scene: Scene) -> tuple[str, str, str]:
    return scene.things[0].colour, scene.things[0].motion, scene.background


@click.group()
def main() -> None:
    """Own clips of hearts."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", default=40, show_default=True)
def make(folder: Path, count: int) -> None:
    """Write clips with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    found, texts = draw(1, count)
    with hearts():
        for number, (scene, text) in enumerate(zip(found, texts, strict=True)):
            media.write(folder / f"{number:03d}.mp4", rendering.render(scene), FPS)
            (folder / f"{number:03d}.txt").write_text(text + "\n", encoding="utf-8")


@main.command()
@click.option("--lora", help="The adapter.")
@click.option("--model", default="pocket", show_default=True, help="The base model, or the fine-tuned one.")
@click.option("--count", default=50, show_default=True, help="Prompts of hearts, and of the world.")
@click.option("--steps", default=20, show_default=True)
@click.option("--trained", default=40, show_default=True, help="Clips that `make` made.")
def score(lora: str | None, model: str, count: int, steps: int, trained: int) -> None:
    """Score the base, or the adapter, on held-out prompts of hearts and on the world's."""
    known, _ = draw(1, trained)
    wanted, prompts = draw(2, count, known)
    session = Session.open(model, lora=lora)
    asked = EvalRequest(session, (), count, FRAMES, 64, 64, 1, steps=steps, cfg=None, seed=0, rows=8)
    with hearts():
        clips = [np.asarray(clip) for clip in asked.make(prompts)]
        seen = [judging.judge(clip).things[0] for clip in clips]
        real = [judging.judge(rendering.render(one)).things[0] for one in wanted]
    result: dict[str, Any] = {"lora": lora, "count": count}
    for name in ("shape", "colour", "motion", "size"):
        for who, ones in (("heart", seen), ("heart_real", real)):
            right = sum(
                getattr(a, name) == getattr(b.things[0], name) for a, b in zip(ones, wanted, strict=True)
            )
            result[f"{who}_{name}"] = right / count
    report = evaluate(asked.make, "combinations", count)
    result["world"] = {line.attribute: line.made.rate for line in report.lines}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
