"""From a Condition and noisy latents to a velocity: adds context frames and fixed frames around the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from hy_core.errors import UsageError

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.dit import DiT
    from hy_core.flow.cache import BlockCache


class Denoiser:
    """The velocity of one condition: `denoiser(latents, time)`.

    All that depends only on the prompt or the shape is prepared once, on construction. Context frames stand
    before the video, at their own temporal positions and times, and are removed from the output; fixed frames are
    set to their values, run at their own time (0 when clean), and get velocity 0, so that a sampler leaves them
    as they are. `attention` is the attention kernel (`hy_core.dit.attention.BACKENDS`).

    UsageError if the network has extra input channels and the condition doesn't set them.
    """

    def __init__(self, dit: DiT, cond: Condition, attention: str = "auto") -> None:
        extra = dit.config.in_channels - dit.config.out_channels
        if extra > 0 and cond.channel_condition is None:
            raise UsageError(
                f"the network has {extra} input channels beside the noisy ones, which no plugin sets",
                "it starts from a picture: use a plugin that takes one (hy plugins)",
            )
        self.dit, self.cond = dit, cond
        self.device, self.dtype = dit.device, dit.dtype
        at = [position for context in cond.contexts for position in context.at]
        positions = torch.tensor([*at, *range(cond.frames)], dtype=torch.float32, device=self.device)
        is_clean = [context.time == "clean" for context in cond.contexts for _ in context.at]
        is_fixed = [frame in cond.fixed_frames for frame in range(cond.frames)]
        self.context_frames = len(is_clean)
        # [F] of the network's frames, context first: which run at times of their own, and these times
        self.is_fixed = torch.tensor([*is_clean, *is_fixed], dtype=torch.bool, device=self.device)
        times = [
            cond.fixed_frames[frame].time if frame in cond.fixed_frames else 0.0
            for frame in range(cond.frames)
        ]
        self.fixed_times = torch.tensor([0.0] * self.context_frames + times, device=self.device)
        self.prepared = dit.prepare(
            [row.to(self.device, self.dtype) for row in cond.tokens()],
            cond.pooled.to(self.device, self.dtype),
            positions,
            cond.size,
            None if cond.guidance is None else cond.guidance.to(self.device),
            cond.frames if cond.riflex else None,
            attention,
        )
        self.adapter_inputs = dit.adapter_inputs(cond.adapter_inputs)

    def __call__(self, latents: Tensor, time: Tensor | float, cached: BlockCache | None = None) -> Tensor:
        """Velocity, float32 [B, C, F, h, w], of latents of that shape.

        `time` is a number, [B], or [B, F] (1 noise, 0 clean); `cached` are the tokens of a step cache, to use or to
        store.
        """
        cond, rows = self.cond, len(latents)
        context = [c.latents.to(latents).expand(rows, *c.latents.shape[1:]) for c in cond.contexts]
        frames = torch.cat([*context, cond.with_fixed_frames(latents)], 2)
        if (channels := cond.channel_condition) is not None:  # zero in context frames
            channels = channels.to(latents).expand(rows, *channels.shape[1:])
            frames = torch.cat([frames, F.pad(channels, (0, 0, 0, 0, self.context_frames, 0))], 1)
        time = self._frame_times(torch.as_tensor(time, dtype=torch.float32, device=self.device), rows)
        is_fixed = self.is_fixed.expand(rows, -1) if self.is_fixed.any() else None
        time = time if is_fixed is None else self.fixed_times.where(is_fixed, time)
        frames = frames.to(self.device, self.dtype)
        if cached is None:
            velocity = self.dit(frames, time, self.prepared, self.adapter_inputs, is_fixed)
        else:
            velocity = cached.run(self.dit, frames, time, self.prepared, self.adapter_inputs, is_fixed)
        velocity = velocity[:, :, self.context_frames :].to(latents.device, torch.float32)
        if cond.fixed_frames:
            is_fixed = self.is_fixed[self.context_frames :, None, None]
            velocity = velocity.masked_fill(is_fixed.to(latents.device), 0.0)
        out: Tensor = velocity
        return out

    def _frame_times(self, time: Tensor, rows: int) -> Tensor:
        """Times of all the network's frames [B, F]; context at the video's time takes its noisiest."""
        video = time.reshape(-1, 1) if time.ndim < 2 else time
        video = video.expand(rows, self.cond.frames)
        return torch.cat([video.amax(1, keepdim=True).expand(rows, self.context_frames), video], 1)
