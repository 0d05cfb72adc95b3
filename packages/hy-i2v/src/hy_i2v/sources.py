"""The pictures and clips of the options as frames of the whole video and of its segments. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hy_i2v import keyframes, pictures
from hy_i2v.keyframes import FixedPicture
from hy_i2v.options import I2VOptions

if TYPE_CHECKING:
    import numpy as np
    from hy_core.condition import Condition
    from hy_core.request import Request
    from PIL import Image


@dataclass(frozen=True)
class Sources:
    """The frames that the options fix in a request's video."""

    options: I2VOptions
    request: Request

    @property
    def length(self) -> int:
        """Frames of the whole video, all segments together."""
        return self.request.frames + self.options.extend * (self.request.frames - self.options.overlap)

    def fixed_pictures(self) -> list[FixedPicture]:
        """Return the pictures by their frames in the whole video, in order; UsageError if two are in one place."""
        options = self.options
        found = [
            keyframes.parse_keyframe(one, self.request.fps, "--i2v-keyframes") for one in options.keyframes
        ]
        if options.image:
            found.append(FixedPicture(0, options.image, "--i2v-image"))
        if options.last:
            found.append(FixedPicture(self.length - 1, options.last, "--i2v-last"))
        if options.loop and options.image:
            found.append(FixedPicture(self.length - 1, options.image, "--i2v-loop"))
        return keyframes.in_order(found, self.length, options.overlap if options.video else 0, "--i2v-video")

    def clip(self) -> np.ndarray | None:
        """Return the frames of --i2v-video that the video starts with, uint8 [overlap, H, W, 3]; None without it."""
        if self.options.video is None:
            return None
        return pictures.read_clip_end(
            self.options.video, self.options.overlap, self.request.fps, "--i2v-video"
        )

    def check(self) -> None:
        """Read all pictures and the clip; HyError for one that can't be read."""
        for one in self.fixed_pictures():
            pictures.open_picture(one.picture, one.flag)
        self.clip()

    def fully_fixed_segment(self) -> str | None:
        """Return in words the first segment all of whose latent frames are fixed; None if there is none."""
        options, frames = self.options, self.request.frames
        latents = keyframes.group_of(frames - 1) + 1
        overlap = set(range(keyframes.group_of(options.overlap - 1) + 1))
        for number in range(1 + options.extend):
            start = number * (frames - options.overlap)
            fixed = set(overlap) if number or options.video else set()
            places = [one.frame - start for one in self.fixed_pictures()]
            fixed |= {keyframes.group_of(place) for place in places if 0 <= place < frames}
            if options.loop and options.video and number == options.extend:
                fixed.add(latents - 1)
            if len(fixed) == latents > 1:
                return f"all of the {frames} frames from frame {start} on are fixed"
        return None

    def first_frames(self, cond: Condition) -> list[Image.Image]:
        """Return the frames that a segment starts with, of the segment before it or of --i2v-video, if any."""
        from PIL import Image

        previous = cond.encoding.previous_frames
        frames = self.clip() if previous is None else previous[-self.options.overlap :]
        return [] if frames is None else [Image.fromarray(frame) for frame in frames]

    def segment_pictures(self, cond: Condition) -> dict[int, Image.Image]:
        """Return the pictures of a segment by their frames in it."""
        from PIL import Image

        options, frames = self.options, self.request.frames
        taken = options.overlap if cond.encoding.previous_frames is not None else 0
        found = {
            one.frame - cond.encoding.start_frame: pictures.open_picture(one.picture, one.flag)
            for one in self.fixed_pictures()
            if taken <= one.frame - cond.encoding.start_frame < frames
        }
        is_last = cond.encoding.start_frame + frames == self.length
        if options.loop and is_last and (clip := self.clip()) is not None:
            found[frames - 1] = Image.fromarray(clip[0])
        return found


def first_size(options: I2VOptions) -> tuple[int, int]:
    """Return width and height of the first picture or clip of the options, as it is shown."""
    if options.video and not options.image:
        from hy_core import media

        info = media.probe(options.video)
        return info.width, info.height
    if path := options.image or options.last:
        return pictures.open_picture(path, "--i2v-image" if options.image else "--i2v-last").size
    one = keyframes.parse_keyframe(options.keyframes[0], 1.0, "--i2v-keyframes")
    return pictures.open_picture(one.picture, one.flag).size
