"""Options of the image-to-video plugin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hy_core import Conditioner, option


@dataclass(frozen=True)
class I2VOptions(Conditioner.Options):
    """Each field is a flag, a TOML key and a keyword."""

    image: Path | None = option(None, metavar="FILE", help="First frame.")
    last: Path | None = option(None, metavar="FILE", help="Last frame.")
    keyframes: tuple[Path, ...] = option(
        (),
        metavar="FRAME=FILE",
        help="Picture at a frame (8=b.png) or time (1.5s=b.png); holds its group of 4. Repeat for more.",
    )
    video: Path | None = option(None, metavar="FILE", help="Clip to continue, instead of a picture.")
    overlap: int = option(
        5, minimum=1, help="Frames (4k+1) taken from --i2v-video or from the previous segment."
    )
    extend: int = option(0, minimum=0, maximum=1000, help="Number of segments to append.")
    loop: bool = option(False, help="Use the first picture as last frame too.")
    fit: Literal["crop", "pad"] = option("crop", help="Crop pictures to the video's shape, or add bars.")
    resolution: Literal["auto", "model", "360p", "540p", "720p"] = option(
        "auto",
        help="Without --size: class of a size in the picture's shape; auto: the model's; model: its own size.",
    )
    official_size: bool = option(False, help="Choose the size exactly as the official code does.")
    stability: bool = option(False, help="Start near the picture: less motion. Use with --shift 7.")
    semantic: bool = option(True, help="Let the model's language model read the picture, if it can.")

    @property
    def is_empty(self) -> bool:
        """Whether no picture and no clip is given."""
        return not (self.image or self.last or self.keyframes or self.video)
