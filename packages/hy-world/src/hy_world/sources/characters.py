"""Clips of characters that speak: the source `characters`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hy_core.data import Clip, SourceSpec
from hy_core.errors import UsageError
from hy_core.request import Sound

from hy_world.characters import EXPRESSIONS, FRAMINGS, Stage, perform, sample_stage
from hy_world.characters_captions import describe
from hy_world.characters_geometry import truth
from hy_world.characters_render import render_stage
from hy_world.characters_speech import SOURCES, opening, talk
from hy_world.render import backdrop
from hy_world.scene import FPS, FRAMES
from hy_world.sources.procedural import ProceduralSource

RATE = 16_000


def sample_talking(
    rng: np.random.Generator,
    split: str = "train",
    frames: int = FRAMES,
    framing: str | None = None,
    people: int = 1,
    source: str = "vowels",
    changing: bool = False,
    fps: float = FPS,
) -> tuple[Stage, np.ndarray]:
    """Draw a stage whose characters speak, and what they say: float32 [people, N] at 16 kHz.

    `source` is one of `characters_speech.SOURCES`. A clip in eight is silent.
    """
    seconds = frames / fps
    sounds = np.stack([talk(rng, seconds, source) * (rng.random() > 0.125) for _ in range(people)])
    mouth = np.stack([opening(sound, RATE, frames, fps) for sound in sounds])
    return sample_stage(rng, split, frames, framing, people, mouth, changing, fps), sounds


def portrait(rng: np.random.Generator, stage: Stage) -> Stage:
    """Return a stage of one frame with the same people in the same place: calm of body, mouth shut, in any mood."""
    moods = tuple(EXPRESSIONS)
    cast = []
    for one in stage.characters:
        mood = moods[rng.integers(len(moods))]
        cast.append(replace(one, performance=perform(rng, 1, "stand", (mood, mood), np.zeros(1), stage.fps)))
    return replace(stage, characters=tuple(cast))


@dataclass(frozen=True, eq=False)
class StageClip(Clip):
    """A stage with the speech of its K people, float32 [K, N] at 16 kHz; `still` is a portrait of the same people.

    `generic_caption_prob` is the share of captions that only say that somebody talks.
    """

    stage: Stage
    speech: np.ndarray
    still: Stage
    height: int
    width: int
    generic_caption_prob: float = 0.0

    @property
    def fps(self) -> float:
        return self.stage.fps

    def video(self) -> np.ndarray:
        return render_stage(self.stage, self.height, self.width)

    def caption(self, rng: np.random.Generator) -> str:
        return describe(rng, self.stage, plain=rng.random() < self.generic_caption_prob).text

    def sound(self) -> Sound:
        """Return all people's speech together, mono."""
        return Sound(self.speech.sum(0, keepdims=True).astype(np.float32), RATE)

    def annotations(self) -> dict[str, Any]:
        """Return what drives K people, from left to right, lengths in pixels.

        speech [K, N] at `rate`; faces and lips [K, T, 4] (left, top, right, bottom); landmarks [K, T, 68, 2] (iBUG's
        order); joints [K, T, 17, 2] (COCO's) and visible [K, T, 17]; portrait uint8 [H, W, 3]; fps.
        """
        facts = truth(self.stage, self.height, self.width)
        return {
            "fps": self.stage.fps,
            "speech": self.speech,
            "rate": RATE,
            "faces": np.stack([one.face for one in facts]),
            "lips": np.stack([one.lips for one in facts]),
            "landmarks": np.stack([one.landmarks for one in facts]),
            "joints": np.stack([one.joints for one in facts]),
            "visible": np.stack([one.visible for one in facts]),
            "portrait": render_stage(self.still, self.height, self.width)[0],
        }

    def background(self) -> np.ndarray:
        return backdrop(self.stage.background, self.height, self.width)


@dataclass(frozen=True)
class CharacterOptions:
    """The table `[data.sources.characters]`.

    `framings` are the views to draw from, with repeats to draw one more often; `speech` one of
    `characters_speech.SOURCES`; `changing` the share of clips whose expression changes. `generic_caption_prob` is the
    share of captions that leave looks and actions to the drivers: a network that reads them in the caption learns to
    ignore the drivers.
    """

    framings: tuple[str, ...] = tuple(FRAMINGS)
    people: int = 1
    speech: str = "vowels"
    changing: float = 0.25
    generic_caption_prob: float = 0.0


class CharacterSource(ProceduralSource[StageClip]):
    """Characters with speech, captions and drivers; `UsageError` for options that don't exist."""

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.options = spec.read_options(CharacterOptions)
        if unknown := [one for one in self.options.framings if one not in FRAMINGS]:
            raise UsageError(f"{spec.label}: no framing {unknown[0]!r}", f"use {', '.join(FRAMINGS)}")
        if not self.options.framings or self.options.people < 1 or self.options.speech not in SOURCES:
            raise UsageError(
                f"{spec.label}: framings, people or speech are out of range",
                f"one framing or more, one person or more, speech of {', '.join(SOURCES)}",
            )

    def draw(self, rng: np.random.Generator) -> StageClip:
        spec, options = self.spec, self.options
        framing = options.framings[rng.integers(len(options.framings))]
        changing = bool(rng.random() < options.changing)
        stage, sounds = sample_talking(
            rng, spec.split, spec.frames, framing, options.people, options.speech, changing
        )
        return StageClip(
            stage, sounds, portrait(rng, stage), spec.height, spec.width, options.generic_caption_prob
        )
