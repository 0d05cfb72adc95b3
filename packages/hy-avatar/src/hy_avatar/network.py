"""The avatar's modules at a DiT's ports, and their inputs for a window of the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hy_core.dit import DiT
from torch import Tensor

from hy_avatar.adapters import Adapters, Attend, Bottleneck
from hy_avatar.config import AvatarConfig
from hy_avatar.controls import Controls
from hy_avatar.driver_tokens import GROUP, DriverTokens
from hy_avatar.latent_inputs import LatentInputs


def attach_modules(dit: DiT, name: str, config: AvatarConfig) -> None:
    """Attach the modules of `config` to a DiT under a plugin's name; until they are trained they change nothing."""
    width, dims = dit.width, dit.config
    if config.speech or config.expression:
        dit.adapter_inputs.attach(name, DriverTokens(config, width))
    if config.reference != "none" or config.pose != "none":
        dit.embed.attach(name, LatentInputs(config, dims.out_channels, width, dit.img_in))
    if config.controls:
        dit.time.attach(name, Controls(width, config.controls))
    for kind, blocks in (("double", dit.double_blocks), ("single", dit.single_blocks)):
        for index, block in enumerate(blocks):
            if adapters := adapters_after(config, width, kind, index):
                port: Any = block
                port.after.attach(name, adapters)


def adapters_after(config: AvatarConfig, width: int, kind: str, index: int) -> Adapters:
    """Return the adapters after a block; `kind` is "double" or "single", `index` counts from 0."""
    made = Adapters()

    def is_after(every: int) -> bool:
        return every > 0 and index % every == every - 1

    if (speech := config.speech) and is_after(speech.every if kind == "double" else speech.every_single):
        made.attach("speech", Attend(width, width, speech.heads, speech.inner, eps=1e-5))
    if expression := config.expression:
        every = expression.every_double if kind == "double" else expression.every_single
        if is_after(every):
            made.attach("expression", Attend(width, width, expression.heads, expression.inner, eps=1e-5))
    for task, options in config.tasks.items():
        if is_after(options.every):
            made.attach(task, Bottleneck(width, options.rank))
    return made


def slice_frames(inputs: Mapping[str, Any], frames: Sequence[int]) -> dict[str, Any]:
    """Return the adapter inputs of a window of the video: consecutive latent `frames`, possibly wrapping to the start.

    A window that starts at latent frame f takes the features of pixel frames from 4f on; after the end of the video
    come zeros (silence) up to 4F, then its start again (facts 2.5). Every window has the same reference.
    """
    inputs, whole = dict(inputs), inputs["frames"]
    index = torch.tensor(list(frames))
    inputs["frames"] = len(frames)

    def slice_latents(value: Tensor, axis: int) -> Tensor:
        return value if value.shape[axis] == 1 else value.index_select(axis, index.to(value.device))

    def slice_pixels(value: Tensor) -> Tensor:
        steps = (GROUP * index[0] + torch.arange(GROUP * len(index) - 3)) % (GROUP * whole)
        silence = value.new_zeros(*value.shape[:2], GROUP * whole - value.shape[2], *value.shape[3:])
        return torch.cat((value, silence), 2).index_select(2, steps.to(value.device))

    for task, one in inputs.items():
        if isinstance(one, Mapping):
            one = {**one, "mask": slice_latents(one["mask"], 2)} if "mask" in one else dict(one)
            inputs[task] = {**one, "features": slice_pixels(one["features"])} if "features" in one else one
    if "pose" in inputs:
        inputs["pose"] = slice_latents(inputs["pose"], 2)
    if inputs.get("pose_mask") is not None:
        inputs["pose_mask"] = slice_latents(inputs["pose_mask"], 1)
    return inputs
