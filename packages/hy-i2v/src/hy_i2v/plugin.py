"""The plugin `i2v`: its options, and what it tells the network. Torch is imported only to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hy_core import Conditioner, hookimpl, option
from hy_core.conditioner import Segments
from hy_core.errors import UsageError

from hy_i2v import given, sizes
from hy_i2v.given import GROUP, Given

if TYPE_CHECKING:
    import numpy as np
    from hy_core.condition import Condition
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.request import Request
    from PIL import Image
    from torch import Tensor

FIRST_CUT = 4
"""Decoded frames that a network with the picture in its channels leaves out: its first latent frame is no frame."""
LONG = 192
"""Frames above which the official code slows down one temporal frequency."""
STABLE = 0.001
"""How much of the picture's latent the start has in stability mode."""


class I2V(Conditioner):
    """Start from a picture, go through pictures, or continue a clip."""

    name = "i2v"

    @dataclass(frozen=True)
    class Options:
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

    def defaults(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """A size in the first picture's shape, unless the model is a small one or its own size is asked for."""
        name = self.options.resolution
        if name == "auto":
            name = sizes.class_of(model["height"], model["width"]) or "model"
        if name == "model" or self.nothing:
            return {}
        width, height = self.shape()
        pick = sizes.official if self.options.official_size else sizes.nearest
        high, wide = pick(height, width, sizes.buckets(sizes.CLASSES[name]))
        return {"width": wide, "height": high}

    def validate(self, request: Request) -> None:
        """Look at everything that is given: what it is, and that no two are in one place."""
        options = self.options
        if self.nothing:
            raise UsageError(
                "i2v: nothing is given to start from",
                "--i2v-image, --i2v-last, --i2v-keyframes or --i2v-video",
            )
        if options.image and options.video:
            raise self.error("video", "--i2v-image gives the first frame already; drop one of them")
        if options.last and options.loop:
            raise self.error("loop", "--i2v-last gives the last frame already; drop one of them")
        if options.loop and not (options.image or options.video):
            raise self.error("loop", "needs a first picture, --i2v-image or --i2v-video, to end with")
        if (options.overlap - 1) % GROUP:
            low = (options.overlap - 1) // GROUP * GROUP + 1
            raise self.error("overlap", f"must be {GROUP}k+1, such as {low} or {low + GROUP}")
        if (options.extend or options.video) and options.overlap >= request.frames:
            raise self.error(
                "overlap", f"{options.overlap} frames leave none of the {request.frames} to make"
            )
        for one in self.pictures(request):
            given.open_picture(one.picture, one.flag)
        if options.video:
            self.clip(request)
        if full := self.full(request):
            warnings.warn(f"i2v: {full}: there is nothing to generate in it; use more --frames", stacklevel=2)

    def full(self, request: Request) -> str | None:
        """The segment all of whose latent frames are given, in words; None if each has some to make."""
        options, latents = self.options, given.group_of(request.frames - 1) + 1
        for number in range(1 + options.extend):
            start = number * (request.frames - options.overlap)
            held = set(range(given.group_of(options.overlap - 1) + 1 if number or options.video else 0))
            places = [one.frame - start for one in self.pictures(request)]
            held |= {given.group_of(place) for place in places if 0 <= place < request.frames}
            if options.loop and options.video and number == options.extend:
                held.add(latents - 1)
            if len(held) == latents > 1:
                return f"all of the {request.frames} frames from frame {start} on are given"
        return None

    @property
    def nothing(self) -> bool:
        """Whether no frame is given at all."""
        options = self.options
        return not (options.image or options.last or options.keyframes or options.video)

    def pictures(self, request: Request) -> list[Given]:
        """The pictures and their frames in the whole video, in order; UsageError if two are in one place."""
        options, length = self.options, self.length(request)
        found = [given.keyframe(one, request.fps, "--i2v-keyframes") for one in options.keyframes]
        if options.image:
            found.append(Given(0, options.image, "--i2v-image"))
        if options.last:
            found.append(Given(length - 1, options.last, "--i2v-last"))
        if options.loop and options.image:
            found.append(Given(length - 1, options.image, "--i2v-loop"))
        return given.check(found, length, options.overlap if options.video else 0, "--i2v-video")

    def length(self, request: Request) -> int:
        """Frames of the whole video."""
        return request.frames + self.options.extend * (request.frames - self.options.overlap)

    def clip(self, request: Request) -> np.ndarray:
        """The frames of --i2v-video that the video begins with, uint8 [overlap, H, W, 3], in its own size."""
        return given.end_of(self.options.video, self.options.overlap, request.fps, "--i2v-video")

    def shape(self) -> tuple[int, int]:
        """Width and height of the first thing that is given."""
        options = self.options
        if options.video and not options.image:
            from hy_core import media

            about = media.probe(options.video)
            return about.width, about.height
        if path := options.image or options.last:
            return given.open_picture(path, "--i2v-image" if options.image else "--i2v-last").size
        one = given.keyframe(options.keyframes[0], 1.0, "--i2v-keyframes")
        return given.open_picture(one.picture, one.flag).size

    def segments(self, request: Request) -> Segments | None:
        """--i2v-extend: so many segments more."""
        return Segments(1 + self.options.extend, self.options.overlap) if self.options.extend else None

    def encode(self, request: Request, cond: Condition) -> None:
        """Give the frames of this segment, and let the language model see the first of them."""
        start, pictures = self.beginning(request, cond), self.here(request, cond)
        latents = self.latents(request, cond, start, pictures)
        self.hold(cond, latents)
        if self.options.stability and 0 in latents:
            cond.set_adapter_inputs(self.name, {"stability": stability(request, latents[0])})
        cond.riflex = cond.riflex or request.frames > LONG
        first = start[0] if start else pictures.get(0)
        if self.options.semantic and first is not None:
            self.show(request, cond, first)

    def plan_sampling(self, request: Request, cond: Condition, policy: SamplingPolicy) -> None:
        """Trim the frames of the first latent frame, which a network with a mask channel doesn't generate."""
        if cond.condition_channels > cond.vae.config.latent_channels:
            policy.trim_start(FIRST_CUT)

    def beginning(self, request: Request, cond: Condition) -> list[Image.Image]:
        """The frames that this segment begins with: of what is made, or of the clip to go on from; or none."""
        from PIL import Image

        frames = ()
        if cond.previous_frames is not None:
            frames = cond.previous_frames[-self.options.overlap :]
        elif self.options.video:
            frames = self.clip(request)
        return [Image.fromarray(frame) for frame in frames]

    def here(self, request: Request, cond: Condition) -> dict[int, Image.Image]:
        """The pictures of this segment by their frames in it."""
        from PIL import Image

        free = self.options.overlap if cond.previous_frames is not None else 0
        found = {
            one.frame - cond.start_frame: given.open_picture(one.picture, one.flag)
            for one in self.pictures(request)
            if free <= one.frame - cond.start_frame < request.frames
        }
        if (
            self.options.loop
            and self.options.video
            and cond.start_frame + request.frames == self.length(request)
        ):
            found[request.frames - 1] = Image.fromarray(self.clip(request)[0])
        return found

    def latents(
        self, request: Request, cond: Condition, start: list[Image.Image], pictures: Mapping[int, Image.Image]
    ) -> dict[int, Tensor]:
        """The latent frames [1, C, 1, h, w] that are given, by their places."""
        from hy_i2v.frames import moving, pixels, still

        def ready(*frames: Image.Image) -> Tensor:
            fitted = given.fitted(frames, request.width, request.height, self.options.fit)
            return pixels(fitted, cond.vae)

        found: dict[int, Tensor] = {}
        if start:
            found |= dict(enumerate(moving(cond.vae, ready(*start), cond.tiling_for).split(1, dim=2)))
        for frame, picture in pictures.items():
            encode = still if frame else moving
            found[given.group_of(frame)] = encode(cond.vae, ready(picture), cond.tiling_for)
        return found

    def hold(self, cond: Condition, latents: Mapping[int, Tensor]) -> None:
        """Give latent frames as the network takes them: held, or the first one by channels beside the noisy ones."""
        if not cond.condition_channels:
            for place, latent in latents.items():
                cond.fix_frames(self.name, [place], latent)
            return
        from hy_i2v.frames import beside

        channels = next(iter(latents.values())).shape[1]
        if list(latents) != [0]:
            raise UsageError(
                "i2v: this network takes one picture, the first; no other frames and no clips",
                "a model that holds frames (16 input channels) takes --i2v-last, -keyframes, -video and -extend",
            )
        if cond.condition_channels not in (channels, channels + 1):
            raise UsageError(
                f"i2v: the network's {cond.condition_channels} further input channels are no picture's"
            )
        if cond.condition_channels > channels:
            if cond.frames < 2:
                raise UsageError("i2v: this network leaves out its first 4 frames: --frames must be over 1")
        cond.set_channel_condition(self.name, beside(latents[0], cond.condition_channels, cond.frames))

    def show(self, request: Request, cond: Condition, picture: Image.Image) -> None:
        """Let the model's language model read the picture and the prompt together, if there is one that can.

        The negative prompt is read with a black picture; both at once, because loading the model takes long.
        """
        from PIL import Image

        from hy_i2v import vision

        def states() -> list[Tensor]:
            if (place := vision.find(cond.folder)) is None:
                return []
            pairs = [(request.prompt, picture), (request.negative, Image.new("RGB", picture.size))]
            stride = vision.BESIDE_STRIDE if cond.condition_channels else vision.HELD_STRIDE
            weight = next(cond.vae.parameters())
            return vision.read(
                place, pairs[: 1 if request.cfg == 1 else 2], stride, weight.device, weight.dtype
            )

        if found := cond.clip_cache.get(f"{self.name}.text", states):
            cond.set_text(self.name, [found[1 if cond.negative else 0]])

    def training_condition(self, batch: Mapping[str, Any], cond: Condition) -> None:
        """In training: give frames of a share of the batches."""
        from hy_i2v.training import give

        give(batch, cond)

    def before_step(self, latents: Tensor, t: float, cond: Condition) -> Tensor:
        """In stability mode, start from other noise with a little of the picture in it."""
        fed = cond.adapter_inputs.get(self.name)
        return latents + fed["stability"].to(latents) if fed and t >= 1 else latents


def stability(request: Request, picture: Tensor) -> Tensor:
    """What stability mode adds to the start noise, [1, C, F, h, w]; `picture` is its latent [1, C, 1, h, w].

    The start becomes 0.999 of the seed's second draw and 0.001 of the picture's latent in every frame. It is said as a
    difference to the first draw, so that what other plugins do to the start stays.
    """
    from hy_core.flow.path import start_noise

    frames = (request.frames - 1) // GROUP + 1
    channels, _, *size = picture.shape[1:]
    first, second = (start_noise((channels, frames, *size), request.seed, draw) for draw in range(2))
    return (1 - STABLE) * second + STABLE * picture.cpu() - first


@hookimpl
def register_conditioners(register: Callable[..., None]) -> None:
    """Offer `i2v`."""
    register(I2V)


@hookimpl
def register_presets(register: Callable[..., None]) -> None:
    """The files in `presets/`."""
    for path in sorted(Path(__file__).with_name("presets").glob("*.toml")):
        register(path.stem, path)
