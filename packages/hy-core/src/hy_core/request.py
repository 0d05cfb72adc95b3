"""Requests for clips, their limits, and results; importing this loads nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hy_core.errors import UsageError
from hy_core.keyed import KeyedCache

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SCHEDULES = ("shifted", "linear-quadratic")
TILINGS = ("auto", "off", "official", "diffusers")
DTYPES = ("auto", "fp32", "bf16", "fp16")
ATTENTIONS = ("auto", "sdpa", "flash2", "flash3", "flex", "matmul")
# Up to here a float counts in steps of one, and the seed of a torch generator has 64 bits.
SEED_END = 2**63
MIN_FPS = 0.01
"""Less than any container's clock holds."""


@dataclass(frozen=True)
class Limits:
    """Limits of a request; the defaults hold for the whole HunyuanVideo family.

    `multiple`: width and height are multiples of it (8 of the VAE times 2 of the patches); `group`: frames are one
    more than a multiple of it; `words` and 20 characters for each: the longest prompt (the text encoders read some
    hundred tokens); `steps`, `fps`: the most.
    """

    multiple: int = 16
    group: int = 4
    words: int = 2000
    steps: int = 1000
    fps: float = 240.0


@dataclass(frozen=True)
class Request:
    """One clip to make.

    `width`, `height` in pixels; `frames` in pixel time; `guidance` is the embedded scale of distilled
    models (None: the model has none); `cfg` is the scale of classifier-free guidance (1 is off);
    `weights` is a file with another DiT for the model, `lora` low-rank weights to add to it ("FILE=SCALE,FILE");
    `rewrite` says of a rewritten prompt what it was (`original`) and which `model` in which `mode` rewrote it;
    `shift` None takes the rule that adapts it to the steps; `options` holds the frozen `Options` of each
    plugin by plugin name.
    """

    prompt: str
    negative: str = ""
    width: int = 64
    height: int = 64
    frames: int = 17
    fps: float = 8.0
    steps: int = 20
    seed: int = 0
    guidance: float | None = None
    cfg: float = 1.0
    shift: float | None = None
    schedule: str = "shifted"
    sampler: str = "euler"
    model: str = "pocket"
    weights: str | None = None
    lora: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    tiling: str = "auto"
    compile: bool = False
    rewrite: Mapping[str, str] | None = None
    plugins: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def validate(self, limits: Limits = Limits()) -> None:
        """Raise `UsageError`, one line with the fix, for what no model of the family can do."""
        check_prompt(self.prompt, "prompt", limits)
        check_prompt(self.negative, "--negative", limits)
        if not self.prompt.strip():
            raise UsageError("the prompt is empty", 'say what to see: hy generate "a red circle moves right"')
        for name, value in (("width", self.width), ("height", self.height)):
            if value < limits.multiple or value % limits.multiple:
                raise UsageError(
                    f"--size {self.width}x{self.height}: "
                    f"{name} {value} is not a multiple of {limits.multiple}",
                    f"nearest: --size {nearest_sizes(self.width, self.height, limits.multiple)}",
                )
        if self.frames < 1 or (self.frames - 1) % limits.group:
            raise UsageError(
                f"--frames {self.frames}: frames must be {limits.group}k+1",
                f"nearest: --frames {nearest_frames(self.frames, limits.group)}",
            )
        if not 1 <= self.steps <= limits.steps:
            raise UsageError(f"--steps {self.steps}: must be from 1 to {limits.steps}")
        if not (math.isfinite(self.fps) and MIN_FPS <= self.fps <= limits.fps):
            raise UsageError(f"--fps {self.fps:g}: must be from {MIN_FPS:g} to {limits.fps:g}")
        if not 0 <= self.seed < SEED_END:
            raise UsageError(f"--seed {self.seed}: must be from 0 to {SEED_END - 1}")
        for name, scale in (("cfg", self.cfg), ("guidance", self.guidance)):
            if scale is not None and not (math.isfinite(scale) and 0 <= scale <= 1000):
                raise UsageError(f"--{name} {scale:g}: must be from 0 to 1000")
        if self.shift is not None and not (math.isfinite(self.shift) and 0 < self.shift <= 1000):
            raise UsageError(f"--shift {self.shift:g}: must be over 0 and at most 1000")


@dataclass
class Sound:
    """A soundtrack: `samples` float32 [channels, count] in -1..1 at `rate` Hz."""

    samples: np.ndarray
    rate: int


@dataclass
class Result:
    """A finished clip: `frames` uint8 [F, H, W, 3] (array or tensor), its sound and how it was made.

    `session_cache` is the session's, for models that `finish` uses for many clips.

    `frames` is None if they were written as they came (see `Session.stream`).
    """

    frames: Any
    fps: float
    sound: Sound | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    request: Request | None = None
    session_cache: KeyedCache = field(default_factory=KeyedCache, repr=False, compare=False)


def check_prompt(text: str, what: str, limits: Limits) -> None:
    """Refuse a text that is longer than any encoder reads by far."""
    words = len(text.split())
    if words > limits.words or len(text) > 20 * limits.words:
        raise UsageError(
            f"the {what} has {words} words and {len(text)} characters; "
            f"the limit is {limits.words} words and {20 * limits.words} characters",
            "the text encoders read some hundred tokens: say the most important things first",
        )


def nearest_sizes(width: int, height: int, multiple: int = 16) -> str:
    """The valid sizes next to a wrong one, nearest first: `960x544 or 960x528`."""

    def around(value: int) -> list[int]:
        low = max(value // multiple * multiple, multiple)
        return [low] if value <= multiple or value % multiple == 0 else [low, low + multiple]

    sizes = [(w, h) for w in around(width) for h in around(height)]
    sizes.sort(key=lambda size: (abs(size[0] - width) + abs(size[1] - height), -size[0] * size[1]))
    return " or ".join(f"{w}x{h}" for w, h in sizes[:2])


def nearest_frames(frames: int, group: int = 4) -> str:
    """The valid frame counts next to a wrong one, nearest first: `17 or 21`."""
    if frames < 1:
        return "1"
    low = (frames - 1) // group * group + 1
    pair = sorted({low, low + group}, key=lambda n: (abs(n - frames), n))
    return " or ".join(map(str, pair))
