"""The official checkpoints of Foley into its networks: tensors only, strictly, one copy in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from hy_core.errors import HyError
from hy_core.weights.files import load_state
from hy_core.weights.keys import Rule, Table
from hy_core.weights.strict import fill
from torch import Tensor

from hy_audio.codec.weight_norm import weight_norm_source
from hy_audio.foley.config import FoleyConfig
from hy_audio.foley.dac import DACVAE, DACConfig
from hy_audio.foley.model import Foley
from hy_audio.foley.synchformer import Synchformer, SynchformerConfig

_NAMES = {
    "audio": {
        "mod.linear": "audio_mod.linear",
        "qkv": "audio_self_attn_qkv",
        "q_norm": "audio_self_q_norm",
        "k_norm": "audio_self_k_norm",
        "proj": "audio_self_proj",
        "cross_q": "audio_cross_q",
        "cross_q_norm": "audio_cross_q_norm",
        "cross_proj": "audio_cross_proj",
        "mlp.fc1": "audio_mlp.fc1",
        "mlp.fc2": "audio_mlp.fc2",
    },
    "visual": {
        "mod.linear": "v_cond_mod.linear",
        "qkv": "v_cond_attn_qkv",
        "q_norm": "v_cond_attn_q_norm",
        "k_norm": "v_cond_attn_k_norm",
        "proj": "v_cond_self_proj",
        "cross_q": "v_cond_cross_q",
        "cross_q_norm": "v_cond_cross_q_norm",
        "cross_proj": "v_cond_cross_proj",
        "mlp.fc1": "v_cond_mlp.fc1",
        "mlp.fc2": "v_cond_mlp.fc2",
    },
}

#: Our names of the triple blocks' layers, and the official ones; all others are the same.
OFFICIAL = Table(
    "official Foley",
    (
        *(
            Rule(f"triple_blocks.{{}}.{stream}.{ours}", (f"triple_blocks.{{}}.{theirs}",))
            for stream, names in _NAMES.items()
            for ours, theirs in names.items()
        ),
        Rule("triple_blocks.{}.text_kv", ("triple_blocks.{}.text_cross_kv",)),
        Rule("triple_blocks.{}.text_k_norm", ("triple_blocks.{}.text_cross_k_norm",)),
    ),
)


def load_foley(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: FoleyConfig | None = None,
) -> Foley:
    """Load `hunyuanvideo_foley.pth`, `..._xl.pth`, or the same as safetensors.

    The configuration is `config`, or what the shapes show (they don't show `interleaved`, on in all released
    weights). `dtype` None keeps the file's. HyError, in one line, if anything doesn't fit.
    """
    state = load_state(path)
    config = config or foley_config(_shapes(state))
    return fill_foley(config, state, f"the Foley weights of {path}", device, dtype)


def fill_foley(
    config: FoleyConfig,
    state: dict[str, Tensor],
    what: str = "the Foley weights",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Foley:
    """Build the network and give it a state dict in the official names, which is emptied."""
    with torch.device("meta"):
        foley = Foley(config)
    fill(foley, state, what, OFFICIAL.source, device=device, dtype=dtype)
    return foley


def foley_config(shapes: Mapping[str, tuple[int, ...]]) -> FoleyConfig:
    """Read a configuration off the shapes of an official checkpoint."""
    width, channels, _ = _shape(shapes, "audio_embedder.proj.weight", "a Foley network")
    layer = "triple_blocks.0.audio_self_q_norm"
    head = _shape(shapes, f"{layer}.weight", "a Foley network with known heads")[0]
    return FoleyConfig(
        width=width,
        heads=width // head,
        depth_triple=_count(shapes, "triple_blocks.{}.audio_mod.linear.weight"),
        depth_single=_count(shapes, "single_blocks.{}.modulation.linear.weight"),
        mlp_ratio=shapes["triple_blocks.0.audio_mlp.fc1.weight"][0] / width,
        qkv_bias="triple_blocks.0.audio_self_attn_qkv.bias" in shapes,
        head_norm="layer" if f"{layer}.bias" in shapes else "rms",
        sync_kernel=shapes["sync_in.2.w1.weight"][2],
        latent_channels=channels,
        text_dim=shapes["cond_in.linear_1.weight"][1],
        visual_dim=shapes["visual_proj.w1.weight"][1],
        sync_dim=shapes["sync_in.0.weight"][1],
    )


def load_dac(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: DACConfig | None = None,
) -> DACVAE:
    """Load `vae_128d_48k.pth`, weight-normed or folded, or the same as safetensors; as `load_foley` otherwise.

    The configuration is read off the shapes, which show all of it but the sample rate (48 kHz is assumed).
    """
    state = load_state(path)
    config = config or dac_config(_shapes(state))
    return fill_dac(config, state, f"the audio VAE weights of {path}", device, dtype)


def fill_dac(
    config: DACConfig,
    state: dict[str, Tensor],
    what: str = "the audio VAE weights",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> DACVAE:
    """Build the VAE and give it a state dict in the official names, which is emptied."""
    with torch.device("meta"):
        vae = DACVAE(config)
    fill(vae, state, what, weight_norm_source(state), device=device, dtype=dtype)
    return vae


def dac_config(shapes: Mapping[str, tuple[int, ...]]) -> DACConfig:
    """Read a configuration off the shapes of an official checkpoint: a stage's kernel is twice its rate."""
    weights = {
        key.replace("weight_v", "weight").replace("parametrizations.weight.original1", "weight"): shape
        for key, shape in shapes.items()
    }
    latent = _shape(weights, "quant_conv.weight", "a continuous DAC")[1]

    def rates(pattern: str) -> tuple[int, ...]:
        found: list[int] = []
        while (key := pattern.format(len(found) + 1)) in weights:
            found.append(weights[key][2] // 2)
        return tuple(found)

    return DACConfig(
        encoder_dim=_shape(weights, "encoder.block.0.weight", "a continuous DAC")[0],
        encoder_rates=rates("encoder.block.{}.block.4.weight"),
        latent_dim=latent,
        decoder_dim=_shape(weights, "decoder.model.0.weight", "a continuous DAC")[0],
        decoder_rates=rates("decoder.model.{}.block.1.weight"),
    )


def load_synchformer(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: SynchformerConfig | None = None,
) -> Synchformer:
    """Load the visual half of `synchformer_state_dict.pth`; the rest of the file (its ear) is left out."""
    state = load_state(path)
    prefix = "vfeat_extractor."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for dead in ("patch_embed.proj.weight", "patch_embed.proj.bias"):
        state.pop(dead, None)  # an embedding of single pictures that the network keeps and doesn't use
    config = config or synchformer_config(_shapes(state))
    with torch.device("meta"):
        network = Synchformer(config)
    fill(network, state, f"the Synchformer weights of {path}", device=device, dtype=dtype)
    return network.eval()


def synchformer_config(shapes: Mapping[str, tuple[int, ...]]) -> SynchformerConfig:
    """Read a configuration off the shapes; heads have 64 channels, as in every ViT-B."""
    width, _, tube, patch, _ = _shape(shapes, "patch_embed_3d.proj.weight", "Synchformer")
    return SynchformerConfig(
        width=width,
        depth=_count(shapes, "blocks.{}.norm1.weight"),
        heads=width // 64,
        mlp_width=shapes["blocks.0.mlp.fc1.weight"][0],
        size=round((shapes["pos_embed"][1] - 1) ** 0.5) * patch,
        patch=patch,
        frames=shapes["temp_embed"][1] * tube,
        tube=tube,
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str, what: str) -> tuple[int, ...]:
    if key not in shapes:
        some = ", ".join(sorted(shapes)[:3]) or "nothing"
        raise HyError(f"these weights aren't those of {what}: there is no {key}", hint=f"they have {some}")
    return shapes[key]


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number
