"""Given frames in training: a share of the batches starts from a picture, a pair of pictures, or a clip.

With the same data and weights as text to video, so that one network does both (facts of the paper's section 4.6: the
image's latent is the first frame, at time 0, outside the loss).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from hy_core.errors import UsageError
from hy_core.flow.path import interpolate

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.text.llava import LlavaFolders

    from hy_i2v.image_prompt import ImagePromptEncoder

OWNER = "i2v"


@dataclass(frozen=True)
class Shares:
    """The `[conditioning.i2v]` table of a recipe: how often which frames are given; the rest is text to video.

    `noise` is the largest time up to which the given latents are disturbed, against drift: a network that has only
    seen perfect first frames trusts every error of its own when it continues a clip.

    `blind` is the share of rows whose picture a multimodal language model doesn't see: it reads a black one, as it does
    with a negative prompt. Without such a model it means nothing.
    """

    first: float = 0.3
    ends: float = 0.1  # the first and the last frame
    start: float = 0.05  # the first half of the clip
    noise: float = 0.05
    blind: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.first, self.ends, self.start)
        if min(*shares, self.noise, self.blind) < 0 or sum(shares) > 1 or self.noise >= 1 or self.blind > 1:
            raise UsageError(
                "[conditioning.i2v]: shares must not be negative nor more than 1 together, noise below 1",
                "for instance first = 0.3, ends = 0.1, start = 0.05, noise = 0.05, blind = 0.1",
            )

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Shares:
        """Take a recipe's table; UsageError names what it doesn't know."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(table) - set(known)):
            raise UsageError(f"[conditioning.i2v]: unknown key {unknown[0]!r}", f"known: {', '.join(known)}")
        return cls(**table)


def give(batch: Mapping[str, Any], cond: Condition) -> None:
    """Fix the frames that are drawn for this batch, if any; a multimodal language model reads the first of them.

    Pictures, of one frame, have nothing to give, nor have clips of two latent frames both ends. A network that takes a
    picture beside the noise gets the first frame in place of any, as in use: it has no place for others, nor for how
    noisy one is. Beside what every batch of a flow objective has, `batch` needs `prompts` where the model's folder has
    a multimodal model.
    """
    shares, generator = Shares.read(batch["settings"]), batch["generator"]
    latents = batch["latents"]

    def draw() -> float:
        return torch.rand(1, generator=generator, device=generator.device).item()

    kind = draw()
    if cond.frames == 1 or kind >= shares.first + shares.ends + shares.start:
        return
    if cond.condition_channels:
        from hy_i2v.latents import to_channels

        cond.set_channel_condition(
            OWNER, to_channels(latents[:, :, :1], cond.condition_channels, cond.frames)
        )
        show(batch, cond, shares.blind, draw)
        return
    if kind < shares.first:
        frames, held = [0], latents[:, :, :1]
    elif kind < shares.first + shares.ends:
        if cond.frames == 2:
            return
        from hy_i2v.latents import encode_static_group

        if cond.vae is None:
            raise UsageError(
                "[conditioning.i2v]: ends needs a VAE, and this objective has none", "set ends = 0"
            )
        last = encode_static_group(cond.vae, batch["pixels"]()[:, :, -1:].to(latents.device))
        frames, held = [0, -1], torch.cat([latents[:, :, :1], last], 2)
    else:
        half = cond.frames // 2
        frames, held = list(range(half)), latents[:, :, :half]
    time = shares.noise * draw()
    if time:
        noise = torch.randn(held.shape, generator=generator, device=generator.device).to(held)
        held = interpolate(held, noise, torch.tensor(time))
    cond.fix_frames(OWNER, frames, held, time)
    show(batch, cond, shares.blind, draw)


def show(batch: Mapping[str, Any], cond: Condition, blind: float, draw: Callable[[], float]) -> None:
    """Let the model's multimodal language model, if it has one, read each row's prompt with its first frame.

    As in use (`I2V.show`), but for a share `blind` of the rows, which get a black picture: so that the network also
    learns to go on without (the released trainers do it with one in ten).
    """
    from hy_i2v import image_prompt

    place = image_prompt.find(cond.folder)
    if place is None:
        return
    from PIL import Image

    text = cond.text[0]
    encoder, rows = _encoder(place, text.device, text.dtype), []
    stride = image_prompt.CHANNEL_STRIDE if cond.condition_channels else image_prompt.FIXED_FRAME_STRIDE
    frames = ((batch["pixels"]()[:, :, 0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    for prompt, frame in zip(batch["prompts"], frames.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
        picture = Image.fromarray(frame * (draw() >= blind))
        rows.append(encoder.encode(prompt, picture, stride))
    cond.set_text(OWNER, rows)


@lru_cache(maxsize=1)
def _encoder(folders: LlavaFolders, device: torch.device, dtype: torch.dtype) -> ImagePromptEncoder:
    """Load the LLaVA once for all batches of a run."""
    from hy_i2v.image_prompt import ImagePromptEncoder

    return ImagePromptEncoder.load(folders, device, dtype)
