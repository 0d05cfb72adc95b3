"""What can be said to the plugin `avatar`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hy_core import option

HEAD_SCALE, EXPRESSION_SCALE = 25.0, 30.0
"""Buckets of motion that the released sampler takes."""


@dataclass(frozen=True)
class Options:
    """A flag, a TOML key and a keyword each."""

    image: Path | None = option(None, metavar="FILE", help="Picture of the person; required.")
    speech: tuple[Path, ...] = option(
        (),
        metavar="FILE",
        help="Sound file with speech, also the clip's sound. Repeat for more speakers.",
    )
    speaker: tuple[str, ...] = option(
        (),
        metavar="FACE",
        help="Whose speech it is: largest, a number from 0 (left to right), x,y or left,top,right,bottom "
        "in parts of the picture. One for each --avatar-speech.",
    )
    mask: tuple[Path, ...] = option(
        (),
        metavar="FILE",
        help="Picture, video or array, white where the speech acts, in place of a found face. "
        "One for each --avatar-speech.",
    )
    area: float | None = option(
        None,
        minimum=0.1,
        maximum=100,
        help="Sides of the mask, in those of the face; as the weights were trained if not given.",
    )
    strength: float = option(1.0, minimum=0, maximum=4, help="How strongly the face follows the speech.")
    head_scale: float = option(HEAD_SCALE, minimum=0, maximum=100, help="Amount of head motion, 0 to 100.")
    expression_scale: float = option(
        EXPRESSION_SCALE, minimum=0, maximum=100, help="Strength of facial expression, 0 to 100."
    )
    expression: Path | None = option(
        None,
        metavar="FILE",
        help="Video of an actor, or a pose file that has a face: the face follows it.",
    )
    expression_strength: float = option(
        1.0, minimum=0, maximum=4, help="How strongly the face follows the actor."
    )
    face_codec: Path | None = option(
        None,
        metavar="FILE",
        help="Face codec that reads expressions, for weights that were trained with it.",
    )
    pose: Path | None = option(
        None, metavar="FILE", help="Video of a dancer, or a pose file (.json, .npz): the body follows it."
    )
    pose_strength: float = option(1.0, minimum=0, maximum=4, help="How strongly the body follows the dancer.")
    pose_person: int = option(0, minimum=0, help="Person to follow in --avatar-pose, from 0, left to right.")
    pose_fit: bool = option(
        True, help="Give the dancer the limb lengths and the place of the picture's person."
    )
    dwpose: Path | None = option(
        None,
        metavar="DIR",
        help="Folder with DWPose's ONNX files to find poses with, in place of MediaPipe.",
    )
    speech_gate: Literal["auto", "silence", "off"] | None = option(
        None,
        help="Keep the mouth shut in silence and, with silero-vad, in music (auto), or by loudness only (silence); "
        "as the weights say if not given.",
    )
    fix_first_frame: bool | None = option(
        None,
        help="Begin with the picture itself as the first frame; as the weights were trained if not given.",
    )
    restrict_to_mask: bool | None = option(
        None,
        help="Let speech and actor change the face alone: all else is as it would be without them (twice the work); "
        "as the weights were trained if not given.",
    )
    image_prompt: Literal["beside", "instead", "off"] = option(
        "beside",
        help="Let the model's language model see the picture, if it can: beside the prompt or instead of it.",
    )
    guidance: Literal["auto", "released", "plain"] = option(
        "auto", help="released: text first, then speech alone; plain: --cfg in all steps."
    )
    cache: bool = option(True, help="With released guidance: reuse results of other steps, as released.")
    whisper: Path | None = option(
        None, metavar="DIR", help="Folder of the Whisper model that encodes speech."
    )
    weights: Path | None = option(
        None, metavar="FILE", help="Adapter weights, for a model whose folder has none."
    )

    @property
    def faces_driven(self) -> int:
        """How many faces something drives: a face for each speech, or that of the expression."""
        return len(self.speech) or int(self.expression is not None)
