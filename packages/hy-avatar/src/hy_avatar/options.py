"""Options of the avatar plugin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hy_core import Conditioner, option

HEAD_SCALE, EXPRESSION_SCALE = 25.0, 30.0
"""The released sampler's buckets of motion, 0 to 100."""


@dataclass(frozen=True)
class AvatarOptions(Conditioner.Options):
    """Each field is a flag, a TOML key and a keyword."""

    image: Path | None = option(None, metavar="FILE", help="Picture of the person; required.")
    speech: tuple[Path, ...] = option(
        (),
        metavar="FILE",
        help="Sound file with speech, also the clip's sound. Repeat for more speakers.",
    )
    speaker: tuple[str, ...] = option(
        (),
        metavar="FACE",
        help="Face that speaks: largest, a number from 0 (left to right), x,y or left,top,right,bottom "
        "in parts of the picture. One for each --avatar-speech.",
    )
    mask: tuple[Path, ...] = option(
        (),
        metavar="FILE",
        help="Picture, video or array, white where the speech acts, instead of a detected face. "
        "One for each --avatar-speech.",
    )
    area: float | None = option(
        None,
        minimum=0.1,
        maximum=100,
        help="Sides of the mask relative to those of the face. Default: as the weights were trained.",
    )
    strength: float = option(1.0, minimum=0, maximum=4, help="How strongly the face follows the speech.")
    head_scale: float = option(HEAD_SCALE, minimum=0, maximum=100, help="Amount of head motion, 0 to 100.")
    expression_scale: float = option(
        EXPRESSION_SCALE, minimum=0, maximum=100, help="Strength of facial expression, 0 to 100."
    )
    expression: Path | None = option(
        None,
        metavar="FILE",
        help="Video of a face, or a pose file with one: the face follows it.",
    )
    expression_strength: float = option(
        1.0, minimum=0, maximum=4, help="How strongly the face follows the expression."
    )
    face_codec: Path | None = option(
        None,
        metavar="FILE",
        help="Face codec that encodes expressions, for weights that were trained with it.",
    )
    pose: Path | None = option(
        None, metavar="FILE", help="Video of a person, or a pose file (.json, .npz): the body follows it."
    )
    pose_strength: float = option(1.0, minimum=0, maximum=4, help="How strongly the body follows the pose.")
    pose_person: int = option(0, minimum=0, help="Person to follow in --avatar-pose, from 0, left to right.")
    pose_fit: bool = option(
        True, help="Adapt the pose to the limb lengths and the place of the person in the picture."
    )
    dwpose: Path | None = option(
        None,
        metavar="DIR",
        help="Folder with DWPose's ONNX files, to detect poses with instead of MediaPipe.",
    )
    speech_gate: Literal["auto", "silence", "off"] | None = option(
        None,
        help="Keep the mouth shut in silence and, with silero-vad, in music (auto), or in silence alone (silence). "
        "Default: as the weights say.",
    )
    fix_first_frame: bool | None = option(
        None,
        help="Fix the first frame to the picture. Default: as the weights were trained.",
    )
    restrict_to_mask: bool | None = option(
        None,
        help="Limit the effect of speech and expression to the face, which doubles the work. "
        "Default: as the weights were trained.",
    )
    image_prompt: Literal["beside", "instead", "off"] = option(
        "beside",
        help="Let the model's language model read the picture, if it can: beside the prompt or instead of it.",
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
        """How many faces are driven: one for each speech, or one by an expression."""
        return len(self.speech) or int(self.expression is not None)
