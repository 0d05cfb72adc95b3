"""Options of the image-to-video plugin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hy_core import Conditioner, option


@dataclass(frozen=True)
class I2VOptions(Conditioner.Options):
    """Each field is a flag, a TOML key and a keyword."""

    image: Path | None = option(None, metavar="FILE", help="Picture that the video starts with.")
    last: Path | None = option(None, metavar="FILE", help="Picture that the video ends with.")
    keyframes: tuple[Path, ...] = option(
        (),
        metavar="FRAME=FILE",
        help="Picture at a frame (8=b.png) or time (1.5s=b.png); fixes its group of 4 frames. Repeat for more.",
    )
    video: Path | None = option(
        None, metavar="FILE", help="Clip that the video continues, instead of a picture."
    )
    overlap: int = option(
        5, minimum=1, help="Frames (4k+1) that --i2v-video and each segment of --i2v-extend start with."
    )
    extend: int = option(0, minimum=0, maximum=1000, help="Continue the clip by so many further segments.")
    loop: bool = option(False, help="End with the first picture.")
    fit: Literal["crop", "pad"] = option("crop", help="Cut pictures to the video's shape, or add bars.")
    resolution: Literal["auto", "model", "360p", "540p", "720p"] = option(
        "auto",
        help="Without --size: a size in the picture's shape, of this class or the model's; or the model's own.",
    )
    official_size: bool = option(False, help="Choose the size exactly as the official code does.")
    stability: bool = option(
        False, help="Start from noise with a little of the picture: calmer. Best with --shift 7."
    )
    semantic: bool = option(
        True, help="Encode the picture with the model's language model, if it reads pictures."
    )

    @property
    def is_empty(self) -> bool:
        """Whether no picture and no clip is given."""
        return not (self.image or self.last or self.keyframes or self.video)
