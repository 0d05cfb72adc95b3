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
        help="Sound file with speech, which also becomes the clip's sound. Repeat for more speakers.",
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
        help="Picture, video or array that is white where the speech acts, instead of a detected face. "
        "One for each --avatar-speech.",
    )
    area: float | None = option(
        None,
        minimum=0.1,
        maximum=100,
        help="Sides of the mask relative to those of the face. Default: as the weights were trained.",
    )
    strength: float = option(
        1.0, minimum=0, maximum=4, help="Strength with which the face follows the speech."
    )
    head_scale: float = option(HEAD_SCALE, minimum=0, maximum=100, help="Amount of head motion.")
    expression_scale: float = option(
        EXPRESSION_SCALE, minimum=0, maximum=100, help="Amount of facial motion."
    )
    expression: Path | None = option(
        None,
        metavar="FILE",
        help="Video of a face, or a pose file with one, whose expression the face follows.",
    )
    expression_strength: float = option(
        1.0, minimum=0, maximum=4, help="Strength with which the face follows the expression."
    )
    face_codec: Path | None = option(
        None,
        metavar="FILE",
        help="Face codec that encodes expressions, for weights that were trained with it.",
    )
    pose: Path | None = option(
        None,
        metavar="FILE",
        help="Video of a person, or a pose file (.json, .npz), whose pose the body follows.",
    )
    pose_strength: float = option(
        1.0, minimum=0, maximum=4, help="Strength with which the body follows the pose."
    )
    pose_person: int = option(0, minimum=0, help="Person of the pose video, numbered from 0, left to right.")
    pose_fit: bool = option(
        True, help="Adapt the pose to the limb lengths and the place of the picture's person."
    )
    dwpose: Path | None = option(
        None,
        metavar="DIR",
        help="Folder with DWPose's ONNX files, to detect poses with them instead of MediaPipe.",
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
        help="Encode the picture with the model's language model, if it reads pictures: beside the prompt or instead.",
    )
    guidance: Literal["auto", "released", "plain"] = option(
        "auto",
        help="Guidance of the released sampler (text, then speech alone), or --cfg in all steps (plain).",
    )
    cache: bool = option(
        True, help="With released guidance: reuse the network's results in some steps, as released."
    )
    whisper: Path | None = option(
        None, metavar="DIR", help="Folder of the Whisper model that encodes the speech."
    )
    weights: Path | None = option(
        None, metavar="FILE", help="Weights of the avatar's modules, for a model without them."
    )

    @property
    def faces_driven(self) -> int:
        """How many faces are driven: one for each speech, or one by an expression."""
        return len(self.speech) or int(self.expression is not None)
