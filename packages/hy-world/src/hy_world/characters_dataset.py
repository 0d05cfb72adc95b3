"""Endless clips of characters with speech, for training avatars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hy_world.characters import EXPRESSIONS, Stage, perform, sample_stage
from hy_world.characters_captions import describe
from hy_world.characters_geometry import truth
from hy_world.characters_render import face_masks, render_stage
from hy_world.characters_speech import opening, talk
from hy_world.render import backdrop
from hy_world.scene import FPS, FRAMES

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
class StageClip:
    """A stage with its speech as a `hy_world.clips.Clip`; `still` is a portrait of its people.

    `plain` is the share of captions that only say that somebody talks.
    """

    stage: Stage
    speech: np.ndarray
    still: Stage
    height: int
    width: int
    plain: float = 0.0

    def pixels(self) -> np.ndarray:
        """Frames, uint8 [T, H, W, 3]."""
        return render_stage(self.stage, self.height, self.width)

    def ground(self) -> np.ndarray:
        """The empty background, uint8 [H, W, 3]."""
        return backdrop(self.stage.background, self.height, self.width)

    def caption(self, rng: np.random.Generator) -> str:
        return describe(rng, self.stage, plain=rng.random() < self.plain).text

    def truth(self) -> dict[str, Any]:
        """Return what drives people, for K of them, lengths in pixels; the order is from left to right.

        speech [K, N] at `rate`; faces and lips [K, T, 4] (boxes); landmarks [K, T, 68, 2] (iBUG's order); joints
        [K, T, 17, 2] (COCO's) and visible [K, T, 17]; portrait uint8 [H, W, 3]; fps.
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


class CharacterDataset:
    """`length` clips of characters; the item at an index is the same in every run and worker.

    `shapes` are the (frames, height, width) to draw from, shared by `block` neighbours, `framings` the views. Of the
    captions of `clip`, the share `plain` leaves to what drives a clip what people look like and do: words that told it
    too would teach a model to look no further.
    """

    def __init__(
        self,
        length: int = 0,
        seed: int = 0,
        split: str = "train",
        shapes: Sequence[tuple[int, int, int]] = ((FRAMES, 64, 64),),
        block: int = 1,
        framings: Sequence[str] = ("face", "upper", "full"),
        people: int = 1,
        speech: str = "vowels",
        changing: float = 0.25,
        plain: float = 0.0,
    ) -> None:
        self.length, self.seed, self.split = length, seed, split
        self.shapes, self.block, self.framings = tuple(shapes), block, tuple(framings)
        self.people, self.speech, self.changing, self.plain = people, speech, changing, plain

    def clip(
        self,
        rng: np.random.Generator,
        split: str,
        frames: int,
        height: int,
        width: int,
        things: int | None = None,
    ) -> StageClip:
        """Draw a clip: see `hy_world.clips.Source`."""
        framing = self.framings[rng.integers(len(self.framings))]
        changing = bool(rng.random() < self.changing)
        people = things or self.people
        stage, sounds = sample_talking(rng, split, frames, framing, people, self.speech, changing)
        return StageClip(stage, sounds, portrait(rng, stage), height, width, self.plain)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return video (float32 [3, T, H, W] in -1..1), caption, and all there is to know.

        speech (float32 [people, N], 16 kHz), face (float32 [people, T, H, W] in 0..1), fps, stage,
        truth (of each character), stated (a `CharacterCaption`).
        """
        import torch

        if not 0 <= index < self.length:
            raise IndexError(index)
        choice = np.random.default_rng((self.seed, 2, index // self.block)).integers(len(self.shapes))
        frames, height, width = self.shapes[choice]
        rng = np.random.default_rng((self.seed, 3, index))
        framing = self.framings[rng.integers(len(self.framings))]
        changing = bool(rng.random() < self.changing)
        stage, sounds = sample_talking(rng, self.split, frames, framing, self.people, self.speech, changing)
        words = describe(rng, stage)
        pixels = torch.from_numpy(render_stage(stage, height, width)).permute(3, 0, 1, 2)
        return {
            "video": pixels.float() / 127.5 - 1,
            "caption": words.text,
            "speech": torch.from_numpy(sounds),
            "face": torch.from_numpy(face_masks(stage, height, width)),
            "fps": stage.fps,
            "stage": stage,
            "truth": truth(stage, height, width),
            "stated": words,
        }


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch: video, speech and face are stacked, everything else stays in lists."""
    import torch

    batch: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    for key in ("video", "speech", "face"):
        batch[key] = torch.stack(batch[key])
    return batch
