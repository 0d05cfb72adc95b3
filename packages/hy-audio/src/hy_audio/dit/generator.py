"""The tri-stream DiT as a generator of sound for windows of a clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hy_audio.codec.codec import Codec, MelCodec
from hy_audio.dit.features import FeatureExtractor, feature_extractors
from hy_audio.dit.model import AudioDiT
from hy_audio.dit.model_config import AudioModelConfig
from hy_audio.dit.sampling import sample_audio
from hy_audio.dit.text import load_text_encoder
from hy_audio.frame_sampler import FrameSampler
from hy_audio.weights import load_network


class DiTAudioGenerator:
    """Sound of one window after another, with one prompt: a `hy_audio.soundtrack.AudioGenerator`.

    `visual` and `sync`: extractors of features, None for none; `text` and `negative`: states [L, text_dim] of the
    prompts, L 0 for none; `seconds`: longest window.
    """

    def __init__(
        self,
        dit: AudioDiT,
        codec: Codec,
        text: Tensor,
        negative: Tensor | None = None,
        visual: FeatureExtractor | None = None,
        sync: FeatureExtractor | None = None,
        *,
        seconds: float = 8.0,
        steps: int = 50,
        cfg: float = 4.5,
        shift: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.dit, self.codec, self.text = dit, codec, text
        self.negative = text[:0] if negative is None else negative
        self.rate, self.seconds = codec.sample_rate, seconds
        self.steps, self.cfg, self.shift, self.seed = steps, cfg, shift, seed
        self.feature_extractors = {
            name: extractor for name, extractor in (("visual", visual), ("sync", sync)) if extractor
        }
        self.samplers: Mapping[str, FrameSampler] = self.feature_extractors

    @classmethod
    def load(
        cls,
        folder: str | Path,
        prompt: str = "",
        negative: str = "",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        seconds: float | None = None,
        shift: float | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        seed: int = 0,
    ) -> DiTAudioGenerator:
        """Load a model's folder: `dit.safetensors`, `codec/`, `audio.json` and the encoders.

        The network runs in `dtype`, the codec in fp32; the text encoder is freed after the prompts are encoded. Where
        `seconds`, `shift`, `steps` or `cfg` are None, those of `audio.json` count.
        """
        folder = Path(folder)
        model_config = AudioModelConfig.read(folder)
        dit = load_network(AudioDiT, folder / "dit.safetensors", device, dtype)
        with load_text_encoder(folder, dit.config, device, dtype) as text:
            wanted, unwanted = text.encode([prompt, negative])
        extractors = feature_extractors(folder, dit.config, device, dtype)
        codec = MelCodec.load(folder / "codec", device, torch.float32)
        return cls(
            dit,
            codec,
            wanted,
            unwanted,
            extractors.get("visual"),
            extractors.get("sync"),
            seconds=model_config.seconds if seconds is None else seconds,
            steps=model_config.steps if steps is None else steps,
            cfg=model_config.cfg if cfg is None else cfg,
            shift=model_config.shift if shift is None else shift,
            seed=seed,
        )

    @torch.no_grad()
    def generate(self, inputs: Mapping[str, Sequence[Any]], seconds: float, index: int) -> np.ndarray:
        """Return sound, float32 [1, n] of `seconds`, for the frames of the samplers; noise of window `index`."""
        config, where = self.dit.config, self.dit.device
        length = max(1, math.ceil(seconds * config.rate - 1e-6))
        features = {
            name: extractor.encode(inputs[name]) for name, extractor in self.feature_extractors.items()
        }
        none = torch.zeros(0, config.visual_dim)
        visual = features.get("visual", none)
        at = None
        if "visual" in self.feature_extractors:
            at = [torch.arange(len(visual)) / self.feature_extractors["visual"].fps]
        sync = [features["sync"]] if "sync" in features else None
        wanted = self.dit.prepare([visual], [self.text], length, at, sync)
        nothing = self.dit.prepare([none], [self.negative], length)
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        noise = torch.randn(1, config.channels, length, generator=draw).to(where)
        latents = sample_audio(
            self.dit, noise, wanted, nothing, steps=self.steps, cfg=self.cfg, shift=self.shift
        )
        return self.codec.to_waveform(latents).float().cpu().numpy()
