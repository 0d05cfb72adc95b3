"""The tri-stream DiT as a maker of sound for windows of a clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hy_audio.codec.codec import Codec, MelCodec
from hy_audio.dit.model import AudioDiT
from hy_audio.dit.sampling import sample_audio
from hy_audio.dit.senses import Eye, Stated, eyes, reader
from hy_audio.reading import Sight
from hy_audio.weights import load_network


class AudioMaker:
    """Sound of one window after another, with one prompt: a `hy_audio.soundtrack.Maker`.

    `visual` and `sync` say where the features come from (None: the model makes sound without them); `text` holds
    the prompt's states [L,text_dim], of no length without one, and so does `negative`. `seconds` is the window.
    """

    def __init__(
        self,
        dit: AudioDiT,
        codec: Codec,
        text: Tensor,
        negative: Tensor | None = None,
        visual: Eye | None = None,
        sync: Eye | None = None,
        *,
        seconds: float = 8.0,
        steps: int = 50,
        scale: float = 4.5,
        shift: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.dit, self.codec, self.text = dit, codec, text
        self.negative = text[:0] if negative is None else negative
        self.rate, self.seconds = codec.sample_rate, seconds
        self.steps, self.scale, self.shift, self.seed = steps, scale, shift, seed
        self.eyes = {name: eye for name, eye in (("visual", visual), ("sync", sync)) if eye}
        self.sights: Mapping[str, Sight] = {
            name: Sight(eye.fps, eye.prepare) for name, eye in self.eyes.items()
        }

    @classmethod
    def load(
        cls,
        folder: str | Path,
        prompt: str = "",
        negative: str = "",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        **settings: float,
    ) -> AudioMaker:
        """Read a model folder: `dit.safetensors`, `codec/`, and what `hy_audio.dit.senses` looks for.

        The network runs in `dtype` and the codec in fp32; what reads the prompts is let go when it has read them.
        Without `settings` the model's own count.
        """
        folder = Path(folder)
        stated = Stated.read(folder)
        dit = load_network(AudioDiT, folder / "dit.safetensors", device, dtype)
        with reader(folder, dit.config, device, dtype) as text:
            wanted, unwanted = text.encode([prompt, negative])
        codec = MelCodec.load(folder / "codec", device, torch.float32)
        return cls(
            dit,
            codec,
            wanted,
            unwanted,
            **eyes(folder, dit.config, device, dtype),
            **{name: getattr(stated, name) for name in ("seconds", "shift", "steps", "scale")} | settings,
        )

    @torch.no_grad()
    def make(self, seen: Mapping[str, Sequence[Any]], seconds: float, index: int) -> np.ndarray:
        """Sound float32 [1,n] of `seconds` for pictures of the sights; window `index` has its own noise."""
        config, where = self.dit.config, self.dit.device
        length = max(1, math.ceil(seconds * config.rate - 1e-6))
        features = {name: eye.encode(seen[name]) for name, eye in self.eyes.items()}
        none = torch.zeros(0, config.visual_dim)
        visual = features.get("visual", none)
        at = None
        if "visual" in self.eyes:
            at = [torch.arange(len(visual)) / self.eyes["visual"].fps]
        sync = [features["sync"]] if "sync" in features else None
        wanted = self.dit.prepare([visual], [self.text], length, at, sync)
        nothing = self.dit.prepare([none], [self.negative], length)
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        noise = torch.randn(1, config.channels, length, generator=draw).to(where)
        latents = sample_audio(
            self.dit, noise, wanted, nothing, steps=self.steps, scale=self.scale, shift=self.shift
        )
        return self.codec.to_waveform(latents).float().cpu().numpy()
