"""From a Condition and noisy latents to a velocity: context and pins are put around the network here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from hy_core.errors import UsageError

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.dit import BlockCache, DiT


class Denoiser:
    """The velocity of one condition: `denoiser(latents, time)`.

    All that depends only on the prompt or the shape is prepared once, when this is made. Context frames stand
    before the video, at their own temporal positions and times, and are cut away after; pinned frames are set
    to their values, run at their pin's time (0 when clean), and get velocity 0, so that a sampler leaves them
    as they are.
    """

    def __init__(self, dit: DiT, cond: Condition) -> None:
        extra = dit.config.in_channels - dit.config.out_channels
        if extra > 0 and cond.channel_condition is None:
            raise UsageError(
                f"the network has {extra} input channels beside the noisy ones, which nothing fills",
                "it was made to go on from a picture: use a plugin that gives it one",
            )
        self.dit, self.cond = dit, cond
        self.device, self.dtype = dit.device, dit.dtype
        at = [position for context in cond.contexts for position in context.at]
        positions = torch.tensor([*at, *range(cond.frames)], dtype=torch.float32, device=self.device)
        shown = [context.time == "clean" for context in cond.contexts for _ in context.at]
        pinned = [frame in cond.fixed_frames for frame in range(cond.frames)]
        self.shown = len(shown)
        # [F] of the network's frames: which are given, and so clean
        self.given = torch.tensor([*shown, *pinned], dtype=torch.bool, device=self.device)
        held = [
            cond.fixed_frames[frame].time if frame in cond.fixed_frames else 0.0
            for frame in range(cond.frames)
        ]
        self.known = torch.tensor([0.0] * self.shown + held, device=self.device)  # [F] times of given frames
        self.prepared = dit.prepare(
            [row.to(self.device, self.dtype) for row in cond.tokens()],
            cond.pooled.to(self.device, self.dtype),
            positions,
            cond.size,
            None if cond.guidance is None else cond.guidance.to(self.device),
            cond.frames if cond.riflex else None,
        )
        self.adapter_inputs = dit.adapter_inputs(cond.adapter_inputs)

    def __call__(self, latents: Tensor, time: Tensor | float, kept: BlockCache | None = None) -> Tensor:
        """Velocity, float32, of latents [B, C, F, h, w].

        `time` is a number, [B], or [B, F] (1 noise, 0 clean); `kept` is the network's (see `DiT.forward`).
        """
        cond = self.cond
        context = [c.latents.to(latents).expand(len(latents), *c.latents.shape[1:]) for c in cond.contexts]
        frames = torch.cat([*context, cond.with_fixed_frames(latents)], 2)
        if cond.channel_condition is not None:  # frames that are only looked at have nothing there
            beside = cond.channel_condition.to(latents).expand(
                len(latents), *cond.channel_condition.shape[1:]
            )
            frames = torch.cat([frames, F.pad(beside, (0, 0, 0, 0, self.shown, 0))], 1)
        time = torch.as_tensor(time, dtype=torch.float32, device=self.device)
        time = self._context_times(time, len(latents))
        given = self.given.expand(len(latents), -1) if self.given.any() else None
        time = time if given is None else self.known.where(given, time)
        velocity = self.dit(
            frames.to(self.device, self.dtype), time, self.prepared, self.adapter_inputs, given, kept=kept
        )
        velocity = velocity[:, :, self.shown :].to(latents.device, torch.float32)
        if cond.fixed_frames:
            velocity = velocity.masked_fill(self.given[self.shown :, None, None].to(latents.device), 0.0)
        return velocity

    def _context_times(self, time: Tensor, rows: int) -> Tensor:
        """Times of all the network's frames [B, F]; context at the video's time takes its noisiest."""
        video = time.reshape(-1, 1) if time.ndim < 2 else time
        video = video.expand(rows, self.cond.frames)
        return torch.cat([video.amax(1, keepdim=True).expand(rows, self.shown), video], 1)
