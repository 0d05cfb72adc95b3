"""Previews: clips of fixed prompts in the course of a training, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from hy_core import media
from hy_core.data import ClipShape
from hy_core.device import pick_device
from hy_core.dit import DiT
from hy_core.models import Model, ModelSpec
from hy_core.request import Request
from hy_core.session import stream
from hy_core.text import TextEncoder
from hy_core.weights import load_vae
from PIL import Image, ImageDraw, ImageFont

_STRIP = 5  # frames of each clip
_SEED = 1
_SIDE = 160  # pixels of a frame's shorter side, at least


def preview(dit: DiT, base: ModelSpec, shape: ClipShape, prompts: Sequence[str], path: Path) -> None:
    """Make a clip of each prompt with the network as it is, and write some frames of each as a PNG contact sheet.

    The noise is the same each time, so that pictures of one run can be compared.
    """
    device, own = pick_device(), base.defaults
    vae = load_vae(base.vae, device, dit.dtype).eval().requires_grad_(False)

    def text() -> TextEncoder:
        return TextEncoder.load(base.folder, str(device), dit.dtype)

    model = Model(base.name, dit, vae, text, own, folder=base.folder, file=base.dit)
    requests = [
        Request(
            prompt,
            negative=own.negative,
            width=shape.width,
            height=shape.height,
            frames=shape.frames,
            fps=own.fps,
            steps=own.steps,
            seed=_SEED,
            guidance=own.guidance,
            cfg=own.cfg,
            shift=own.shift,
            sampler=own.sampler,
        )
        for prompt in prompts
    ]
    strips = [
        _strip(prompt, np.asarray(result.frames))
        for prompt, result in zip(prompts, stream(requests, model=model), strict=True)
    ]
    media.write(path, np.concatenate(strips)[None], 1.0)


def _strip(prompt: str, frames: np.ndarray) -> np.ndarray:
    """Some frames [T, H, W, 3] of a clip beside each other under its prompt, uint8 [H', W', 3]."""
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, _STRIP).round().astype(int))]
    enlarge = max(1, round(_SIDE / min(chosen.shape[1:3])))
    chosen = chosen.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    row = np.concatenate(list(chosen), axis=1)
    words = Image.new("RGB", (row.shape[1], 36), "white")
    lines = wrap(prompt, max(row.shape[1] // 7, 10))[:2] or [""]
    ImageDraw.Draw(words).multiline_text((3, 2), "\n".join(lines), "black", ImageFont.load_default(13))
    return np.concatenate([np.asarray(words), row])
