"""From requests to conditions: prompts are encoded, then conditioners add theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from hy_core.condition import Condition, EncodingContext
from hy_core.conditioner import Conditioner, encode
from hy_core.dit import embedded_guidance
from hy_core.dit.ports import refuse_unread
from hy_core.errors import HyError, UsageError
from hy_core.keyed import KeyedCache
from hy_core.pipeline.checks import finite
from hy_core.pipeline.decoding import tiling_for

if TYPE_CHECKING:
    import numpy as np

    from hy_core.flow.policy import SamplingPolicy
    from hy_core.models import Model
    from hy_core.request import Request
    from hy_core.text import Encoded

Texts = Mapping[tuple[str, bool], "Encoded"]
"""Encoded prompts by (prompt, whether for a single picture)."""


def distinct_prompts(requests: Sequence[Request]) -> list[tuple[str, bool]]:
    """The prompts to encode, each once, with whether they are for a single picture."""
    found: dict[tuple[str, bool], None] = {}
    for request in requests:
        is_picture = request.frames == 1
        found[request.prompt, is_picture] = None
        if request.cfg != 1:
            found[request.negative, is_picture] = None
    return list(found)


def encode_prompts(model: Model, prompts: Sequence[tuple[str, bool]]) -> Texts:
    """Encode each prompt on its own, so that none depends on its neighbours; HyError for NaN. Frees the encoders."""
    with model.text() as encoder, torch.inference_mode():
        texts = {(prompt, picture): encoder.encode([prompt], picture) for prompt, picture in prompts}
    for (prompt, _), encoded in texts.items():
        if not all(finite(part) for part in (encoded.pooled, *encoded.text)):
            short = prompt if len(prompt) <= 40 else prompt[:40] + "…"
            raise HyError(
                f"the text encoder gives NaN for {short!r}", "its weights are damaged: fetch them again"
            )
    return texts


def conditions(
    model: Model,
    request: Request,
    texts: Texts,
    conditioners: Sequence[Conditioner],
    session_cache: KeyedCache,
    start_frame: int = 0,
    previous_frames: np.ndarray | None = None,
) -> tuple[list[Condition], SamplingPolicy]:
    """The positive condition of a clip's segment, then the negative one if `cfg` isn't 1; and how to sample them.

    `start_frame` and `previous_frames`, uint8 [overlap, H, W, 3], are those of the segment (see `EncodingContext`).
    """
    scale = guidance_of(request, model)
    frames, height, width = model.vae.config.latent_size(request.frames, request.height, request.width)
    config, conds = model.dit.config, []
    context = EncodingContext(
        vae=model.vae,
        tiling_for=partial(tiling_for, request, model),
        folder=model.folder,
        start_frame=start_frame,
        previous_frames=previous_frames,
        session_cache=session_cache,
    )
    for negative in (False, True) if request.cfg != 1 else (False,):
        prompt = request.negative if negative else request.prompt
        encoded = texts[prompt, request.frames == 1]
        conds.append(
            Condition(
                text=list(encoded.text),
                pooled=encoded.pooled,
                frames=frames,
                size=(height, width),
                fps=request.fps,
                guidance=None if scale is None else embedded_guidance(scale, model.dit.dtype).reshape(1),
                prompts=(prompt,),
                negative=negative,
                condition_channels=max(config.in_channels - config.out_channels, 0),
                patch=(config.patch[1], config.patch[2]),
                encoding=context,
            )
        )
    policy = encode(conditioners, request, conds)
    # Adapter inputs are also how a plugin passes values to its own `before_step`.
    steppers = {one.name for one in conditioners if type(one).before_step is not Conditioner.before_step}
    for cond in conds:
        refuse_unread(model.dit, cond.adapter_inputs, steppers)
    return conds, policy


def guidance_of(request: Request, model: Model) -> float | None:
    """The embedded guidance scale of a distilled model; None for others, which take only `cfg`."""
    if model.dit.config.guidance:
        return model.defaults.guidance or 6.0 if request.guidance is None else request.guidance
    # An official folder doesn't say whether its model was distilled, and its defaults take it to be.
    if request.guidance not in (None, model.defaults.guidance):
        raise UsageError(
            f"--guidance {request.guidance:g}: the model {model.name!r} was not distilled to take it",
            f"use --cfg {request.guidance:g}",
        )
    return None
