"""Fixed frames in training: a share of the batches starts from an image, from two, or from half a clip.

Data and weights are those of text to video, so that one network does both (section 4.6 of the HunyuanVideo report: the
image's latent is the first frame, at time 0, outside the loss).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from hy_core.errors import UsageError
from hy_core.flow.path import interpolate
from hy_core.tables import from_table

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.text.llava import LlavaFolders
    from hy_core.training import TrainingBatch

    from hy_i2v.image_prompt import ImagePromptEncoder

OWNER = "i2v"


@dataclass(frozen=True)
class Shares:
    """The `[conditioning.i2v]` table of a recipe: the shares of batches with fixed frames; the rest is text to video.

    `first_frame`, `first_and_last_frame` and `first_half` say which frames are fixed. `max_noise_time` is the largest
    time at which fixed latents are noised, against drift: a network trained on clean first frames alone trusts its own
    errors when it continues a clip. `image_dropout` is the share of rows whose image the multimodal language model, if
    the model has one, doesn't see: it reads a black one, as with a negative prompt.
    """

    first_frame: float = 0.3
    first_and_last_frame: float = 0.1
    first_half: float = 0.05
    max_noise_time: float = 0.05
    image_dropout: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.first_frame, self.first_and_last_frame, self.first_half)
        others = (self.max_noise_time, self.image_dropout)
        if not (all(0 <= one <= 1 for one in (*shares, *others, sum(shares))) and self.max_noise_time < 1):
            raise UsageError(
                "[conditioning.i2v]: shares must be from 0 to 1 together, max_noise_time below 1",
                "such as first_frame = 0.3, first_and_last_frame = 0.1, first_half = 0.05, max_noise_time = 0.05",
            )

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Shares:
        """Make it of a recipe's table; `UsageError` names an unknown key or wrong value."""
        return from_table(cls, dict(table), "[conditioning.i2v]")


def fix_training_frames(batch: TrainingBatch, cond: Condition) -> None:
    """Fix the frames that are drawn for a batch, if any; a multimodal language model also reads the first of them.

    Images (one frame) have none, and clips of two latent frames are not fixed at both ends. A network that takes an
    image in further channels gets the first frame in place of any: it takes no others, nor a noise level.
    """
    shares, generator = Shares.read(batch.settings.get(OWNER, {})), batch.generator
    latents = batch.latents

    def draw() -> float:
        return torch.rand(1, generator=generator, device=generator.device).item()

    kind = draw()
    if cond.frames == 1 or kind >= shares.first_frame + shares.first_and_last_frame + shares.first_half:
        return
    if cond.condition_channels:
        from hy_i2v.latents import to_channels

        cond.set_channel_condition(
            OWNER, to_channels(latents[:, :, :1], cond.condition_channels, cond.frames)
        )
        show(batch, cond, shares.image_dropout, draw)
        return
    if kind < shares.first_frame:
        frames, held = [0], latents[:, :, :1]
    elif kind < shares.first_frame + shares.first_and_last_frame:
        if cond.frames == 2:
            return
        from hy_i2v.latents import encode_static_group

        if cond.encoding.vae is None:
            raise UsageError(
                "[conditioning.i2v]: first_and_last_frame needs a VAE, and this objective has none",
                "set first_and_last_frame = 0",
            )
        last = encode_static_group(cond.encoding.vae, batch.video()[:, :, -1:].to(latents.device))
        frames, held = [0, -1], torch.cat([latents[:, :, :1], last], 2)
    else:
        half = cond.frames // 2
        frames, held = list(range(half)), latents[:, :, :half]
    time = shares.max_noise_time * draw()
    if time:
        noise = torch.randn(held.shape, generator=generator, device=generator.device).to(held)
        held = interpolate(held, noise, torch.tensor(time))
    cond.fix_frames(OWNER, frames, held, time)
    show(batch, cond, shares.image_dropout, draw)


def show(batch: TrainingBatch, cond: Condition, image_dropout: float, draw: Callable[[], float]) -> None:
    """Let the model's multimodal language model, if it has one, read each row's prompt with its first frame.

    As `I2V.show` does, but a share `image_dropout` of the rows gets a black image, so that the network also learns to
    do without (the released trainers do it with one in ten).
    """
    from hy_i2v import image_prompt

    place = image_prompt.find(cond.encoding.folder)
    if place is None:
        return
    from PIL import Image

    text = cond.text[0]
    encoder, rows = _encoder(place, text.device, text.dtype), []
    stride = image_prompt.CHANNEL_STRIDE if cond.condition_channels else image_prompt.FIXED_FRAME_STRIDE
    frames = ((batch.video()[:, :, 0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    for prompt, frame in zip(batch.prompts, frames.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
        picture = Image.fromarray(frame * (draw() >= image_dropout))
        rows.append(encoder.encode(prompt, picture, stride))
    cond.set_text(OWNER, rows)


@lru_cache(maxsize=1)
def _encoder(folders: LlavaFolders, device: torch.device, dtype: torch.dtype) -> ImagePromptEncoder:
    """Load the LLaVA once for all batches of a run."""
    from hy_i2v.image_prompt import ImagePromptEncoder

    return ImagePromptEncoder.load(folders, device, dtype)
