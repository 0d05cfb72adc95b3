"""Reduce a VAE's latent channels to the principal components of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from hy_core.data import Clip
from hy_core.errors import UsageError
from hy_core.training.batch import to_pixels
from hy_core.vae import VAE
from torch import Tensor, nn


@torch.no_grad()
def reduce_channels(model: VAE, channels: int, clips: Sequence[Clip], logvar: float) -> VAE:
    """Return the same codec with `channels` latent channels: the principal components of its latents on `clips`.

    The changes of basis are folded into the convolutions beside the latents, so that nothing but the omitted components
    is lost. The components' standard deviations are brought closer to each other (their square roots, scaled to a mean
    of 2), and the log-variance starts at `logvar`. `UsageError` unless there are fewer channels than before.
    """
    before = model.config.latent_channels
    if not 0 < channels < before:
        raise UsageError(f"model.latent_channels = {channels}: not fewer than the {before} of init_from")
    latents = torch.cat([model.encode(to_pixels(clip.video())[None]).mode() for clip in clips])
    flat = latents.transpose(0, 1).flatten(1)
    mean, (spread, axes) = flat.mean(1), torch.linalg.eigh(torch.cov(flat))
    spread, axes = spread.flip(0)[:channels], axes.flip(1)[:, :channels]
    gain = 2 * (spread.mean() / spread) ** 0.25 / spread.sqrt().mean()
    there, back = (axes * gain).T, axes / gain  # [channels, before], [before, channels]

    small = VAE(replace(model.config, latent_channels=channels))
    beside = ("quant_conv.", "post_quant_conv.", "encoder.conv_out.", "decoder.conv_in.")
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith(beside)}
    small.load_state_dict(kept, strict=False)
    quant = model.quant_conv.weight[:before, :, 0, 0, 0]  # what makes the mean
    out, new = model.encoder.conv_out.conv, small.encoder.conv_out.conv
    new.weight.zero_()
    new.weight[:channels] = torch.einsum("ij,jk,k...->i...", there, quant, out.weight)
    bias_of(new).fill_(logvar)
    bias_of(new)[:channels] = there @ (quant @ bias_of(out) + bias_of(model.quant_conv)[:before] - mean)
    post, bias = model.post_quant_conv.weight[:, :, 0, 0, 0], bias_of(model.post_quant_conv)
    into, new = model.decoder.conv_in.conv, small.decoder.conv_in.conv
    new.weight.copy_(torch.einsum("oi...,ij,jk->ok...", into.weight, post, back))
    bias_of(new).copy_(bias_of(into) + into.weight.sum((2, 3, 4)) @ (post @ mean + bias))
    for conv in (small.quant_conv, small.post_quant_conv):
        conv.weight.copy_(torch.eye(len(conv.weight))[:, :, None, None, None])
        bias_of(conv).zero_()
    return small


def bias_of(conv: nn.Conv3d) -> Tensor:
    """Return a convolution's bias [C], which every convolution of the VAE has."""
    assert conv.bias is not None
    return conv.bias
