"""The released Foley as a generator of sound for windows of a clip: from its files to waveforms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from hy_core.errors import MissingError
from torch import Tensor

from hy_audio.codec.codec import Codec
from hy_audio.dit.sampling import sample_audio
from hy_audio.encoders.frames import SYNCHFORMER
from hy_audio.encoders.text import ClapEncoder
from hy_audio.encoders.vision import SIGLIP_RATE, VisionEncoder
from hy_audio.foley.model import Foley
from hy_audio.foley.synchformer import Synchformer
from hy_audio.foley.weights import load_dac, load_foley, load_synchformer
from hy_audio.frame_sampler import FrameSampler

#: Default negative prompt of the release.
NEGATIVE = "noisy, harsh"
#: Frames a second of the timing features.
SYNC_RATE = 25.0
_FILES = {"XXL": "hunyuanvideo_foley.pth", "XL": "hunyuanvideo_foley_xl.pth"}
_DAC, _SYNC = "vae_128d_48k.pth", "synchformer_state_dict.pth"
_SIGLIP, _CLAP = "siglip2-base-patch16-512", "larger_clap_general"


class FoleyAudioGenerator:
    """Sound of one window after another, with one prompt: a `hy_audio.soundtrack.AudioGenerator`.

    `text` and `negative` are CLAP states [1,L,text_dim] that were encoded together. `cfg` is the guidance.
    """

    def __init__(
        self,
        foley: Foley,
        codec: Codec,
        vision: VisionEncoder,
        timing: Synchformer,
        text: Tensor,
        negative: Tensor,
        *,
        steps: int = 50,
        cfg: float = 4.5,
        seed: int = 0,
    ) -> None:
        self.foley, self.codec, self.vision, self.timing = foley, codec, vision, timing
        self.text, self.negative = text, negative
        self.steps, self.cfg, self.seed = steps, cfg, seed
        self.rate = codec.sample_rate
        #: The length that the released weights were trained on, and are best at.
        self.seconds = 8.0
        self.samplers: Mapping[str, FrameSampler] = {
            "what": FrameSampler(SIGLIP_RATE, vision.preparation.fit_picture),
            "when": FrameSampler(SYNC_RATE, SYNCHFORMER.fit_picture),
        }

    @classmethod
    def load(
        cls,
        folder: str | Path,
        prompt: str,
        negative: str = NEGATIVE,
        size: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        *,
        steps: int = 50,
        cfg: float = 4.5,
        seed: int = 0,
    ) -> FoleyAudioGenerator:
        """Read the official folder, with folders `siglip2-base-patch16-512` and `larger_clap_general` in it.

        `size` is "XXL" or "XL" (default: the first that is there); `dtype` is the network's own (None: its
        file's), all else runs in fp32. CLAP is freed after the prompts are encoded. MissingError names a missing file.
        """
        folder = Path(folder)
        names = [_FILES[size]] if size in _FILES else list(_FILES.values())
        weights = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
        for path in (weights, *(folder / name for name in (_DAC, _SYNC, _SIGLIP, _CLAP))):
            if not path.exists():
                raise MissingError(
                    f"Foley needs {path.name} in {folder}",
                    "download tencent/HunyuanVideo-Foley, google/siglip2-base-patch16-512 and "
                    "laion/larger_clap_general into one folder",
                )
        with ClapEncoder.load(folder / _CLAP, device, torch.float32) as clap:
            states = clap.encode([negative, prompt])
        return cls(
            load_foley(weights, device, dtype).eval(),
            load_dac(folder / _DAC, device, torch.float32).eval(),
            VisionEncoder.load(folder / _SIGLIP, device, torch.float32),
            load_synchformer(folder / _SYNC, device, torch.float32),
            states[1:],
            states[:1],
            steps=steps,
            cfg=cfg,
            seed=seed,
        )

    @torch.no_grad()
    def generate(self, seen: Mapping[str, Sequence[np.ndarray]], seconds: float, index: int) -> np.ndarray:
        """Sound float32 [1,n] of `seconds` for pictures of both samplers; window `index` has its own noise."""
        foley = self.foley
        when = list(seen["when"])
        when += when[-1:] * (self.timing.config.frames - len(when))  # one segment at least
        visual = self.vision.encode(np.stack(seen["what"]))[None]
        sync = self.timing.encode(SYNCHFORMER(when))[None]
        length = max(1, math.ceil(seconds * self.rate / self.codec.hop - 1e-6))
        wanted = foley.prepare(visual, sync, self.text, length)
        nothing = foley.prepare(*foley.empty(1, visual.shape[1], sync.shape[1]), self.negative, length)
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        noise = torch.randn(1, foley.config.latent_channels, length, generator=draw).to(foley.device)
        latents = sample_audio(foley, noise, wanted, nothing, steps=self.steps, cfg=self.cfg)
        return self.codec.to_waveform(latents).float().cpu().numpy()
