"""Parameters and operations, counted on the networks' own modules on the meta device."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from hy_core.dit import DiT, DiTConfig
    from hy_core.vae import VAE, VAEConfig


@lru_cache(maxsize=8)
def meta_dit(config: DiTConfig) -> DiT:
    """The network without memory for its weights."""
    import torch

    from hy_core.dit import DiT

    with torch.device("meta"):
        return DiT(config)


@lru_cache(maxsize=8)
def meta_vae(config: VAEConfig) -> VAE:
    """The VAE without memory for its weights."""
    import torch

    from hy_core.vae import VAE

    with torch.device("meta"):
        return VAE(config)


def dit_parameters(config: DiTConfig) -> int:
    """The number of weights of the network."""
    return sum(parameter.numel() for parameter in meta_dit(config).parameters())


def vae_parameters(config: VAEConfig) -> int:
    """The number of weights of encoder and decoder."""
    return sum(parameter.numel() for parameter in meta_vae(config).parameters())


def linear_flops(*modules: nn.Module) -> int:
    """Operations of all linear layers in these modules, for one token."""
    from torch import nn

    layers = [one for module in modules for one in module.modules() if isinstance(one, nn.Linear)]
    return sum(2 * layer.in_features * layer.out_features for layer in layers)


def attention_flops(queries: int, keys: int, width: int) -> int:
    """Operations of softmax attention: two products of [queries, width] with [keys, width], over all heads."""
    return 4 * queries * keys * width


def forward_flops(config: DiTConfig, tokens: int, text: int, frames: int = 1) -> float:
    """One evaluation of the network for one row of `tokens` video tokens in `frames` frames and `text` text tokens."""
    dit, both = meta_dit(config), tokens + text
    joint = attention_flops(both, both, config.width)
    total = 0
    double: Any = dit.double_blocks  # modules by their own attributes, which torch types as Tensor | Module
    single: Any = dit.single_blocks
    refiner: Any = dit.txt_in.individual_token_refiner.blocks
    for block in double:
        video = (block.img_attn_qkv, block.img_attn_proj, block.img_mlp)
        words = (block.txt_attn_qkv, block.txt_attn_proj, block.txt_mlp)
        total += tokens * linear_flops(*video) + text * linear_flops(*words) + joint
        total += frames * linear_flops(block.img_mod) + linear_flops(block.txt_mod)
    for block in single:
        total += both * linear_flops(block.linear1, block.linear2) + joint
        total += (frames + 1) * linear_flops(block.modulation)  # the text of a row shares one
    for block in refiner:
        total += text * linear_flops(block.self_attn_qkv, block.self_attn_proj, block.mlp)
        total += linear_flops(block.adaLN_modulation) + attention_flops(text, text, config.width)
    patch = dit.img_in.proj.weight
    total += tokens * (2 * patch.numel() + linear_flops(dit.final_layer.linear))
    total += frames * linear_flops(dit.final_layer.adaLN_modulation, dit.time_in)
    return float(total + text * linear_flops(dit.txt_in.input_embedder))


def decoder_shapes(config: VAEConfig, t: int, h: int, w: int) -> list[tuple[int, int, int, int]]:
    """Channels, frames, height and width after the decoder's first layer and after each of its stages."""
    channels = config.channels[::-1]
    found = [(channels[0], t, h, w)]
    for width, (by_time, by_row, by_column) in zip(channels, config.strides(), strict=True):
        t, h, w = 1 + (t - 1) * by_time, h * by_row, w * by_column
        found.append((width, t, h, w))
    return found


def decoder_convolutions(config: VAEConfig, t: int, h: int, w: int) -> list[tuple[int, int, int]]:
    """The decoder's 3x3x3 convolutions on latents [t, h, w]: (channels in, channels out, voxels out) of each."""
    from torch import nn

    decoder: Any = meta_vae(config).decoder
    found: list[tuple[int, int, int]] = []

    def add(module: nn.Module, voxels: int) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.Conv3d) and layer.kernel_size == (3, 3, 3):
                found.append((layer.in_channels, layer.out_channels, voxels))

    (_, *size), *stages = decoder_shapes(config, t, h, w)
    voxels = size[0] * size[1] * size[2]
    add(decoder.conv_in, voxels)
    add(decoder.mid_block, voxels)
    for block, (_, *size) in zip(decoder.up_blocks, stages, strict=True):
        add(block.resnets, voxels)
        voxels = size[0] * size[1] * size[2]
        add(block.upsamplers, voxels)
    add(decoder.conv_out, voxels)
    return found


def decode_flops(config: VAEConfig, t: int, h: int, w: int) -> float:
    """One decoding of latents [t, h, w]: the 3x3x3 convolutions, and attention of each frame to those before."""
    total = sum(54 * a * b * voxels for a, b, voxels in decoder_convolutions(config, t, h, w))
    size, width = h * w, config.channels[-1]
    for attention in meta_vae(config).decoder.mid_block.attentions:
        total += t * size * linear_flops(attention)
        total += sum(attention_flops(size, frame * size, width) for frame in range(1, t + 1))
    return float(total)
