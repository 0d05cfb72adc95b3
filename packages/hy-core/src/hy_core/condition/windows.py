"""The condition of some latent frames of a video, for denoising a long video window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hy_core.condition.condition import Condition


def window(cond: Condition, frames: Sequence[int]) -> Condition:
    """The condition of these latent frames as a video of their own: its frames are 0, 1, 2, ..."""
    frames = list(frames)
    if frames == list(range(cond.frames)):
        return cond
    adapter_inputs = {
        owner: cond.slicers[owner](value, frames)
        if owner in cond.slicers
        else slice_frames(value, frames, cond.frames)
        for owner, value in cond.adapter_inputs.items()
    }
    fixed_frames = {
        place: cond.fixed_frames[frame] for place, frame in enumerate(frames) if frame in cond.fixed_frames
    }
    channel_condition = cond._channel_condition and (
        cond._channel_condition[0],
        cond._channel_condition[1][:, :, frames],
    )
    return cond.copy(
        frames=len(frames),
        adapter_inputs=adapter_inputs,
        fixed_frames=fixed_frames,
        _channel_condition=channel_condition,
    )


def slice_frames(value: Any, frames: Sequence[int], count: int) -> Any:
    """Slice every tensor [B, F, ...] with F = `count` frames in `value`, also in mappings and lists; keep the rest."""
    if isinstance(value, Tensor):
        return value[:, list(frames)] if value.ndim > 1 and value.shape[1] == count > 1 else value
    if isinstance(value, Mapping):
        return {key: slice_frames(part, frames, count) for key, part in value.items()}
    return [slice_frames(part, frames, count) for part in value] if isinstance(value, list | tuple) else value
