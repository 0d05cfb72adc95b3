"""The settings of `hy generate` itself: one declaration of flag, key, type, range and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hy_core import options
from hy_core.options import option
from hy_core.request import SEED_END


@dataclass(frozen=True)
class Core:
    """The settings of `hy generate` itself; None means that the model says."""

    size: str | None = option(None, metavar="WxH", help="Width and height in pixels, multiples of 16.")
    frames: int | None = option(
        None, minimum=1, maximum=1_000_001, help="Number of frames, 4k+1; 1 makes a picture."
    )
    seconds: float | None = option(None, minimum=0, maximum=1e6, help="Length in place of --frames.")
    fps: float | None = option(None, minimum=0, maximum=240, help="Frames per second.")
    steps: int | None = option(None, minimum=1, maximum=1000, help="Sampling steps.")
    seed: int | None = option(
        None, minimum=0, maximum=SEED_END - 1, help="Random seed; drawn and printed if not given."
    )
    guidance: float | None = option(
        None, minimum=0, maximum=1000, help="Guidance input of guidance-distilled models."
    )
    cfg: float | None = option(None, minimum=0, maximum=1000, help="Classifier-free guidance; 1 is off.")
    negative: str | None = option(None, metavar="TEXT", help="Negative prompt (needs --cfg above 1).")
    rewrite: str | None = option(
        None, metavar="[=auto|FOLDER|URL]", help="Rewrite the prompt first: any wording, any language."
    )
    rewrite_mode: Literal["normal", "master"] = option(
        "normal", help="normal keeps the intent; master adds composition, lighting and camera."
    )
    model: str = option("pocket", metavar="NAME|FOLDER", help="The model.")
    weights: str | None = option(None, metavar="FILE", help="DiT to use in place of the model's own.")
    lora: str | None = option(
        None, metavar="FILE[=SCALE]", help="LoRA files to add to the DiT; several with commas."
    )
    device: str = option("auto", metavar="NAME", help="cpu, cuda, cuda:1, mps.")
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", help="Number format of the network.")
    attention: Literal["auto", "sdpa", "flash2", "flash3", "flex", "matmul"] = option(
        "auto", help="Attention back-end (hy doctor tells which work)."
    )
    sampler: str | None = option(
        None, metavar="NAME", help="euler, heun or stochastic; the model's own if not given."
    )
    schedule: Literal["shifted", "linear-quadratic"] = option(
        "shifted", help="Spacing of the sampling steps."
    )
    shift: float | None = option(
        None,
        minimum=0,
        maximum=1000,
        help="Shift of the schedule; default: the model's own, else by --steps.",
    )
    tiling: Literal["auto", "off", "official", "diffusers"] = option("auto", help="Tiling of the decoder.")
    compile: bool = option(False, help="Compile the network: slow start, faster steps.")
    output: str | None = option(
        None,
        metavar="FILE|FOLDER/",
        help="Output: .mp4 .webm .gif, %03d.png for pictures, .png .jpg .webp with --frames 1.",
    )


CORE = {one.name: one for one in options.fields(Core)}
# What may differ from row to row of a batch; the rest belongs to the loaded model.
ROW = (
    *("size", "frames", "seconds", "fps", "steps", "seed", "guidance", "cfg", "negative"),
    *("sampler", "schedule", "shift", "output", "rewrite", "rewrite_mode"),
)
WORDS = ("prompt", "plugins", "requires")
