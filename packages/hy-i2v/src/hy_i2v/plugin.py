"""The plugin `i2v`: its conditioner and what it registers. Torch is imported only to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core import Conditioner, hookimpl
from hy_core.conditioner import Segments
from hy_core.errors import UsageError

from hy_i2v import sizes, sources
from hy_i2v.keyframes import GROUP, group_of
from hy_i2v.options import I2VOptions
from hy_i2v.sources import Sources

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.request import Request
    from hy_core.training import TrainingBatch
    from hy_core.vae import VAE
    from PIL import Image
    from torch import Tensor

FIRST_CUT = 4
"""Decoded frames that a network with a mask channel doesn't generate: its first latent frame is no frame."""
LONG = 192
"""Frames above which the official code lowers one temporal frequency (RIFLEx)."""
STABILITY = 0.001
"""Share of the picture's latent in the start noise of the stability mode."""


class I2V(Conditioner):
    """Start from a picture, pass through pictures, or continue a clip."""

    name = "i2v"

    Options = I2VOptions

    options: I2VOptions

    def defaults(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a size in the first picture's shape, unless the model is a small one or its own size is chosen."""
        name: str = self.options.resolution
        if name == "auto":
            name = sizes.class_of(model["height"], model["width"]) or "model"
        if name == "model" or self.options.is_empty:
            return {}
        width, height = sources.first_size(self.options)
        pick = sizes.official if self.options.official_size else sizes.nearest
        high, wide = pick(height, width, sizes.buckets(sizes.CLASSES[name]))
        return {"width": wide, "height": high}

    def validate(self, request: Request) -> None:
        """Check that the options fit together and that all files can be read; UsageError names the option."""
        options = self.options
        if options.is_empty:
            raise UsageError(
                "i2v: no picture and no clip is given to start from",
                "--i2v-image, --i2v-last, --i2v-keyframes or --i2v-video",
            )
        if options.image and options.video:
            raise self.error("video", "--i2v-image sets the first frame already; drop one of them")
        if options.last and options.loop:
            raise self.error("loop", "--i2v-last sets the last frame already; drop one of them")
        if options.loop and not (options.image or options.video):
            raise self.error("loop", "needs a first picture, --i2v-image or --i2v-video, to end with")
        if (options.overlap - 1) % GROUP:
            low = (options.overlap - 1) // GROUP * GROUP + 1
            raise self.error("overlap", f"must be {GROUP}k+1, such as {low} or {low + GROUP}")
        if (options.extend or options.video) and options.overlap >= request.frames:
            raise self.error(
                "overlap", f"{options.overlap} frames leave none of the {request.frames} to generate"
            )
        found = Sources(options, request)
        found.check()
        if fixed := found.fully_fixed_segment():
            warnings.warn(
                f"i2v: {fixed}: there is nothing to generate in it; use more --frames", stacklevel=2
            )

    def segments(self, request: Request) -> Segments | None:
        """Return the segments of --i2v-extend."""
        return Segments(1 + self.options.extend, self.options.overlap) if self.options.extend else None

    def encode(self, request: Request, cond: Condition) -> None:
        """Fix this segment's frames, and replace the text if the model's language model reads pictures."""
        found = Sources(self.options, request)
        start, pictures = found.first_frames(cond), found.segment_pictures(cond)
        latents = self._latents(request, cond, start, pictures)
        self.fix_latents(cond, latents)
        if self.options.stability and 0 in latents:
            cond.set_adapter_inputs(self.name, {"stability": stability(request, latents[0])})
        cond.riflex = cond.riflex or request.frames > LONG
        first = start[0] if start else pictures.get(0)
        if self.options.semantic and first is not None:
            self._set_image_prompt(request, cond, first)

    def plan_sampling(self, request: Request, cond: Condition, policy: SamplingPolicy) -> None:
        """Trim the frames of the first latent frame, which a network with a mask channel doesn't generate."""
        if cond.condition_channels > _vae(cond).config.latent_channels:
            policy.trim_start(FIRST_CUT)

    def training_condition(self, batch: TrainingBatch, cond: Condition) -> None:
        """Fix frames of a share of the batches; see `hy_i2v.training`."""
        from hy_i2v.training import fix_training_frames

        fix_training_frames(batch, cond)

    def before_step(self, latents: Tensor, t: float, cond: Condition) -> Tensor:
        """In stability mode, add a little of the picture to the start noise. Latents [B, C, F, h, w]."""
        inputs = cond.adapter_inputs.get(self.name)
        if not inputs or t < 1:
            return latents
        change: Tensor = inputs["stability"]
        return latents + change.to(latents)

    def fix_latents(self, cond: Condition, latents: Mapping[int, Tensor]) -> None:
        """Fix latent frames [1, C, 1, h, w] by their places, as the network takes them.

        A network with further input channels takes the first frame alone, in these channels; UsageError for others.
        """
        if not cond.condition_channels:
            for place, latent in latents.items():
                cond.fix_frames(self.name, [place], latent)
            return
        from hy_i2v.latents import to_channels

        channels = next(iter(latents.values())).shape[1]
        if list(latents) != [0]:
            raise UsageError(
                "i2v: this network takes one picture, the first; no other frames and no clips",
                "a model with fixed frames (16 input channels) takes --i2v-last, -keyframes, -video and -extend",
            )
        if cond.condition_channels not in (channels, channels + 1):
            raise UsageError(
                f"i2v: the network's {cond.condition_channels} further input channels are not for a picture"
            )
        if cond.condition_channels > channels and cond.frames < 2:
            raise UsageError("i2v: this network leaves out its first 4 frames: --frames must be over 1")
        cond.set_channel_condition(self.name, to_channels(latents[0], cond.condition_channels, cond.frames))

    def _latents(
        self, request: Request, cond: Condition, start: list[Image.Image], pictures: Mapping[int, Image.Image]
    ) -> dict[int, Tensor]:
        """Return the fixed latent frames [1, C, 1, h, w] of a segment by their places."""
        from hy_i2v.latents import encode_clip, encode_static_group, to_pixels
        from hy_i2v.pictures import resize_all

        vae = _vae(cond)

        def pixels(*frames: Image.Image) -> Tensor:
            return to_pixels(resize_all(frames, request.width, request.height, self.options.fit), vae)

        found: dict[int, Tensor] = {}
        if start:
            found |= dict(
                enumerate(encode_clip(vae, pixels(*start), cond.encoding.tiling_for).split(1, dim=2))
            )
        for frame, picture in pictures.items():
            encode = encode_static_group if frame else encode_clip
            found[group_of(frame)] = encode(vae, pixels(picture), cond.encoding.tiling_for)
        return found

    def _set_image_prompt(self, request: Request, cond: Condition, picture: Image.Image) -> None:
        """Replace the text by the states of the model's LLaVA, which reads the picture with the prompt, if any.

        The negative prompt is read with a black picture; both at once, because loading the model takes long.
        """
        from PIL import Image

        from hy_i2v import image_prompt

        def encode() -> list[Tensor]:
            if (folders := image_prompt.find(cond.encoding.folder)) is None:
                return []
            pairs = [(request.prompt, picture), (request.negative, Image.new("RGB", picture.size))]
            stride = (
                image_prompt.CHANNEL_STRIDE if cond.condition_channels else image_prompt.FIXED_FRAME_STRIDE
            )
            weight = next(_vae(cond).parameters())
            count = 1 if request.cfg == 1 else 2
            return image_prompt.encode(folders, pairs[:count], stride, weight.device, weight.dtype)

        if found := cond.encoding.clip_cache.get(f"{self.name}.text", encode):
            cond.set_text(self.name, [found[1 if cond.negative else 0]])


def _vae(cond: Condition) -> VAE:
    if cond.encoding.vae is None:
        raise ValueError("the condition has no VAE")
    return cond.encoding.vae


def stability(request: Request, picture: Tensor) -> Tensor:
    """Return what the stability mode adds to the start noise, [1, C, F, h, w]; `picture` is a latent [1, C, 1, h, w].

    The start becomes 0.999 of the seed's second draw plus 0.001 of the picture's latent in every frame. It is returned
    as a difference to the first draw, which keeps what other plugins add to the start.
    """
    from hy_core.flow.path import start_noise

    frames = (request.frames - 1) // GROUP + 1
    channels, _, *size = picture.shape[1:]
    first, second = (start_noise((channels, frames, *size), request.seed, draw) for draw in range(2))
    return (1 - STABILITY) * second + STABILITY * picture.cpu() - first


@hookimpl
def register_conditioners(register: Callable[..., None]) -> None:
    """Register the conditioner `i2v`."""
    register(I2V)


@hookimpl
def register_presets(register: Callable[..., None]) -> None:
    """Register the files in `presets/`."""
    for path in sorted(Path(__file__).with_name("presets").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_recipes(register: Callable[..., None]) -> None:
    """The files in `recipes/`."""
    for path in sorted(Path(__file__).with_name("recipes").glob("*.toml")):
        register(path.stem, path)
