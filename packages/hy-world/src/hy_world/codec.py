"""What a VAE keeps of clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hy_world.captions import caption
from hy_world.judge import judge
from hy_world.render import render
from hy_world.report import Report
from hy_world.scene import FRAMES, sample_scene
from hy_world.score import score
from hy_world.text_to_video import real

if TYPE_CHECKING:
    from hy_core.vae import VAE


def evaluate_codec(
    vae: VAE,
    count: int = 200,
    seed: int = 0,
    frames: int = FRAMES,
    height: int = 64,
    width: int = 64,
    objects: int = 1,
    rows: int = 8,
    advance: Callable[[int], None] = lambda clips: None,
) -> Report:
    """Judge what a VAE keeps of real clips.

    `extra["psnr"]` is the mean over clips in dB, the line "all" the share of clips of which all is kept.
    Scenes of all combinations; captions that state everything.
    """
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, "all", frames, height, width, objects) for _ in range(count)]
    stated = [caption(rng, scene, frames, full=True) for scene in scenes]
    clips, found = [], []
    for start in range(0, count, rows):
        given = np.stack([render(scene, frames, height, width) for scene in scenes[start : start + rows]])
        back = coded(vae, given)
        found += [psnr(one, other) for one, other in zip(back, given, strict=True)]
        clips += list(back)
        advance(len(given))
    seen = [judge(clip, objects) for clip in clips]
    lines = score(seen, real(scenes, frames, height, width), scenes, stated)
    mean = float(np.mean(found))
    prompts = [words.text for words in stated]
    return Report("codec", f"codec, {mean:.2f} dB", lines, {"psnr": mean}, prompts=prompts, clips=clips)


def coded(vae: VAE, clips: np.ndarray) -> np.ndarray:
    """Encode and decode clips, uint8 [B, T, H, W, 3] to the same."""
    import torch

    where = next(vae.parameters())
    with torch.inference_mode():
        pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).to(where.device, where.dtype) / 127.5 - 1
        back = vae.decode_inference(vae.encode_inference(pixels).mode()).float().cpu()
    return ((back.permute(0, 2, 3, 4, 1).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return how alike two uint8 arrays of one shape are, in dB; 78 for equal ones.

    Both have the same shape.
    """
    error = ((one.astype(np.float32) - other) ** 2).mean()
    return float(10 * np.log10(255.0**2 / max(error, 1e-3)))
