"""HiFi-GAN: mel spectrograms to waveforms. The network is transformers' `SpeechT5HifiGan`.

Checkpoints of jik876/hifi-gan (V1, V2, V3, weight-normed or folded) load into it; ours are written in the same
layout, folded. B rows, M mel bins, N frames, T samples.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from hy_core.errors import HyError, UsageError
from hy_core.tables import bounded, check_fields, from_table, parse_json, read_text
from hy_core.weights import save_safetensors
from hy_core.weights.files import find, load_state, metadata
from hy_core.weights.strict import fill
from torch import Tensor, nn
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from hy_audio.codec.mel import MelConfig
from hy_audio.codec.weight_norm import weight_norm_source
from hy_audio.weights import to_storage_dtype

SLOPE = 0.1


@dataclass(frozen=True)
class VocoderConfig:
    """Shape of a HiFi-GAN generator; the defaults are V1 at 22.05 kHz, and `mel` is what it reads.

    `kind` 1 has residual blocks of pairs of convolutions (V1, V2), 2 of single ones (V3). The product of `rates`
    is the mel's hop.
    """

    mel: MelConfig = MelConfig(sample_rate=22050)
    kind: int = bounded(1, 1, 2)
    channels: int = bounded(512, 1, 1 << 14)
    rates: tuple[int, ...] = bounded((8, 8, 2, 2), 1, 1024)
    kernels: tuple[int, ...] = bounded((16, 16, 4, 4), 1, 4096)
    block_kernels: tuple[int, ...] = bounded((3, 7, 11), 1, 4096)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    #: V1 to V3 as published, and V1 for other rates.
    named: ClassVar[Mapping[str, VocoderConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "vocoder config")
        stages, blocks = len(self.rates), len(self.block_kernels)
        if not 0 < stages <= 16 or len(self.kernels) != stages or self.channels >> stages < 1:
            raise UsageError(
                f"vocoder config: {stages} rates, {len(self.kernels)} kernels and {self.channels} channels",
                "as many kernels as rates, at most 16, and channels that can be halved at each",
            )
        if any(
            (kernel - rate) % 2 or kernel < rate
            for rate, kernel in zip(self.rates, self.kernels, strict=True)
        ):
            raise UsageError(
                f"vocoder config: kernels {list(self.kernels)} don't fit the rates {list(self.rates)}",
                "each is larger than its rate by an even number",
            )
        if not 0 < blocks <= 16 or len(self.dilations) != blocks:
            raise UsageError(
                f"vocoder config: {blocks} block_kernels and {len(self.dilations)} dilations",
                "as many of both, 1 to 16",
            )
        if not all(1 <= len(row) <= 16 and all(1 <= d <= 1024 for d in row) for row in self.dilations):
            raise UsageError(
                "vocoder config: dilations are out of range", "rows of 1 to 16 numbers from 1 to 1024"
            )
        if math.prod(self.rates) != self.mel.hop:
            raise UsageError(
                f"a vocoder with rates {self.rates} makes {math.prod(self.rates)} samples of a frame, "
                f"but the mel's hop is {self.mel.hop}",
                hint="the rates' product is the hop",
            )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VocoderConfig:
        """Read a config of ours, or the config.json of jik876/hifi-gan, detected by its keys."""
        if "upsample_rates" not in data:
            return from_table(cls, data, "vocoder config")
        names = {
            "resblock": "kind",
            "upsample_initial_channel": "channels",
            "upsample_rates": "rates",
            "upsample_kernel_sizes": "kernels",
            "resblock_kernel_sizes": "block_kernels",
            "resblock_dilation_sizes": "dilations",
        }
        table = {ours: data[theirs] for theirs, ours in names.items() if theirs in data}
        if table.get("kind") in ("1", "2"):
            table["kind"] = int(table["kind"])
        if "num_mels" in data:
            table["mel"] = MelConfig.from_dict(data)
        else:
            rates = table["rates"]
            if not isinstance(rates, list) or not all(
                type(rate) is int and 1 <= rate <= 1024 for rate in rates
            ):
                raise UsageError(
                    f"vocoder config: upsample_rates = {str(rates)[:60]}", "a list of numbers from 1 to 1024"
                )
            table["mel"] = _published(math.prod(rates[:16]))
        return from_table(cls, table, "vocoder config")


_V3 = VocoderConfig(
    kind=2,
    channels=256,
    rates=(8, 8, 4),
    kernels=(16, 16, 8),
    block_kernels=(3, 5, 7),
    dilations=((1, 2), (2, 6), (3, 12)),
)
VocoderConfig.named = {
    "V1": VocoderConfig(),
    "V2": VocoderConfig(channels=128),
    "V3": _V3,
    "pocket": dataclasses.replace(_V3, mel=MelConfig.named["16k"], channels=128),
    "16k": VocoderConfig(mel=MelConfig.named["16k"]),
    "44k": VocoderConfig(mel=MelConfig.named["44k"], rates=(8, 8, 2, 2, 2), kernels=(16, 16, 4, 4, 4)),
    "48k": VocoderConfig(mel=MelConfig.named["48k"], rates=(8, 8, 2, 2, 2), kernels=(16, 16, 4, 4, 4)),
}


class PlainResidual(nn.Module):
    """HiFi-GAN's second residual block: one dilated convolution at a time."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel * d - d) // 2)
            for d in dilations
        )

    def apply_weight_norm(self) -> None:
        for layer in self.convs:
            nn.utils.parametrizations.weight_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolutions of each dilation: [B, C, T] to [B, C, T]."""
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, SLOPE))
        return x


class Vocoder(nn.Module):
    """Log-mel spectrograms [B,M,N] to waveforms [B,N*hop] in [-1, 1]."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.network = SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=config.mel.bins,
                sampling_rate=config.mel.sample_rate,
                upsample_initial_channel=config.channels,
                upsample_rates=list(config.rates),
                upsample_kernel_sizes=list(config.kernels),
                resblock_kernel_sizes=list(config.block_kernels),
                resblock_dilation_sizes=[list(row) for row in config.dilations],
                leaky_relu_slope=SLOPE,
                normalize_before=False,
            )
        )
        if config.kind == 2:
            self.network.resblocks = nn.ModuleList(
                PlainResidual(config.channels // 2 ** (stage + 1), kernel, dilations)
                for stage in range(len(config.rates))
                for kernel, dilations in zip(config.block_kernels, config.dilations, strict=True)
            )

    def forward(self, mel: Tensor) -> Tensor:
        return self.network(mel.transpose(1, 2))

    def normalise_weights(self) -> Vocoder:
        """Give every convolution a weight norm, as training wants; `save_vocoder` folds it again."""
        self.network.apply_weight_norm()
        return self


def load_vocoder(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: VocoderConfig | None = None,
) -> Vocoder:
    """Load a generator: `g_XXXXXXXX` or another file of jik876/hifi-gan's layout, or one that we wrote.

    The configuration is `config`, or what the file or the config.json beside it says, or what the shapes show;
    they don't show rates (taken as half the kernels), dilations and the mel's band (taken as published).
    """
    state = load_state(path)
    config = config or _written(Path(path)) or vocoder_config({k: tuple(v.shape) for k, v in state.items()})
    return fill_vocoder(config, state, f"the vocoder weights of {path}", device, dtype).eval()


def fill_vocoder(
    config: VocoderConfig,
    state: dict[str, Tensor],
    what: str = "the vocoder weights",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Vocoder:
    """Build the network and give it a state dict in jik876/hifi-gan's names, which is emptied.

    `state` holds tensors of any shape by name; those that don't fit raise HyError.
    """
    with torch.device("meta"):
        vocoder = Vocoder(config)
    network = vocoder.network
    keys = [key for key in network.state_dict() if key not in _BUFFERS]
    fill(network, state, what, weight_norm_source(state, _theirs), device=device, dtype=dtype, keys=keys)
    network.register_buffer("mean", torch.zeros(config.mel.bins, device=device))
    network.register_buffer("scale", torch.ones(config.mel.bins, device=device))
    return vocoder


def save_vocoder(vocoder: Vocoder, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a generator folded, in jik876/hifi-gan's names, with its configuration; whole or not at all.

    See `hy_audio.weights.to_storage_dtype` for `dtype`.
    """
    with torch.no_grad():
        state = {}
        for name, module in vocoder.network.named_modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                state[_theirs(f"{name}.weight")] = module.weight.detach()
                if module.bias is not None:
                    state[_theirs(f"{name}.bias")] = module.bias.detach()
    save_safetensors(path, to_storage_dtype(state, dtype), {"config": json.dumps(vocoder.config.to_json())})


def vocoder_config(shapes: Mapping[str, tuple[int, ...]]) -> VocoderConfig:
    """Read a configuration off the shapes of a generator at 22.05 kHz."""
    weights = {
        key.replace("weight_v", "weight").replace("parametrizations.weight.original1", "weight"): shape
        for key, shape in shapes.items()
    }
    if "conv_pre.weight" not in weights or "ups.0.weight" not in weights:
        some = ", ".join(sorted(shapes)[:3]) or "nothing"
        raise HyError(f"these weights aren't those of a HiFi-GAN generator: they have {some}")
    channels, bins, _ = weights["conv_pre.weight"]
    kernels: list[int] = []
    while (key := f"ups.{len(kernels)}.weight") in weights:
        kernels.append(weights[key][2])
    rates = [kernel // 2 for kernel in kernels]
    kind = 1 if "resblocks.0.convs1.0.weight" in weights else 2
    first = "convs1" if kind == 1 else "convs"
    blocks = sum(1 for key in weights if key.startswith("resblocks.") and key.endswith(f".{first}.0.weight"))
    block_kernels = [weights[f"resblocks.{i}.{first}.0.weight"][2] for i in range(blocks // len(kernels))]
    known = VocoderConfig.named["V1" if kind == 1 else "V3"]
    return VocoderConfig(
        mel=_published(math.prod(rates), bins),
        kind=kind,
        channels=channels,
        rates=tuple(rates),
        kernels=tuple(kernels),
        block_kernels=tuple(block_kernels),
        dilations=known.dilations[: len(block_kernels)],
    )


def _published(hop: int, bins: int = 80) -> MelConfig:
    """The published mel where a checkpoint states none, windows being at least four hops long."""
    window = max(1024, 4 * hop)
    return MelConfig(sample_rate=22050, bins=bins, n_fft=window, window=window, hop=hop)


_BUFFERS = ("mean", "scale")


def _theirs(key: str) -> str:
    """A parameter's name in jik876/hifi-gan."""
    return key.replace("upsampler.", "ups.", 1)


def _written(path: Path) -> VocoderConfig | None:
    """The configuration that the file itself, or a config.json beside it, states; None if none does."""
    file = find(path)
    text = metadata(file).get("config")
    beside = file.parent / "config.json"
    if text is None and beside.is_file():
        text = read_text(beside)
    if text is None:
        return None
    data = parse_json(text, f"the config of {file}")
    fits = "upsample_rates" in data or "rates" in data
    return VocoderConfig.from_dict(data) if fits else None
