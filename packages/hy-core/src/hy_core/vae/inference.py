"""The encoder and decoder without gradients: fewer multiplications, less memory, equal results within rounding.

- A convolution runs over spans of frames, last span first. Being causal, it never reads the frames of a span
  again once it is computed, so the result can overwrite its input.
- Normalisation is three numbers per channel, applied with the activation when a convolution reads a span.
- The first frame's repetitions before the clip are never stored: kernel taps on the same frame are summed.
- A picture isn't enlarged before a convolution: along a doubled axis two of the three taps read the same
  value, so even and odd outputs are two convolutions of the small picture, with two taps each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_core.vae.layers import CausalConv3d, ResnetBlock, Upsample

#: How much a convolution reads at a time [bytes]. Smaller pieces save memory, larger ones calls.
PIECE = 8 * 2**20

#: Which of the values that a kernel sees along an axis (columns) its three taps (rows) meet.
Taps = tuple[tuple[int, ...], ...]
EACH: Taps = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
FIRST: Taps = ((1,), (1,), (1,))
ODD: Taps = ((1, 0), (1, 0), (0, 1))
EVEN: Taps = ((1, 0), (0, 1), (0, 1))
#: The kernels along an axis enlarged by a factor, for each output that one input becomes.
DOUBLED: dict[int, tuple[Taps, ...]] = {1: (EACH,), 2: (EVEN, ODD)}


def encode(encoder: Any, x: Tensor) -> Tensor:
    """`encoder(x)`: pixels [B, 3, T, H, W] to moments [B, 2C, t, h, w] before `quant_conv`."""
    x = convolve(encoder.conv_in, x)
    for block in encoder.down_blocks:
        for layer in block.resnets:
            x = resnet(layer, x)
        for layer in block.downsamplers:
            x = convolve(layer.conv, x)
    return convolve(encoder.conv_out, middle(encoder.mid_block, x), encoder.conv_norm_out)


def decode(decoder: Any, z: Tensor) -> Tensor:
    """`decoder(z)`: latents [B, C, t, h, w] after `post_quant_conv` to pixels [B, 3, T, H, W]."""
    x = middle(decoder.mid_block, convolve(decoder.conv_in, z))
    for block in decoder.up_blocks:
        for layer in block.resnets:
            x = resnet(layer, x)
        for layer in block.upsamplers:
            x = upsample(layer, x)
    return convolve(decoder.conv_out, x, decoder.conv_norm_out)


def middle(block: Any, x: Tensor) -> Tensor:
    """`block(x)`; x is overwritten."""
    x = resnet(block.resnets[0], x)
    for attention in block.attentions:
        x = attention(x)
    return resnet(block.resnets[1], x)


def resnet(block: ResnetBlock, x: Tensor) -> Tensor:
    """`block(x)`; x is overwritten."""
    inner = convolve(block.conv1, x, block.norm1)
    if block.conv_shortcut is None:
        for start, stop, piece in convolved_spans(block.conv2, inner, block.norm2):
            x[:, :, start:stop] += piece
        return x
    skip = block.conv_shortcut.conv
    for start, stop, piece in convolved_spans(block.conv2, inner, block.norm2):
        piece += conv3d(x[:, :, start:stop], skip.weight, skip.bias)
        inner[:, :, start:stop] = piece
    return inner


def upsample(layer: Upsample, x: Tensor) -> Tensor:
    """`layer(x)`, from the small x itself."""
    conv, (time, rows, columns) = layer.conv.conv, layer.stride
    batch, _, frames, height, width = x.shape
    out = x.new_empty(batch, conv.out_channels, 1 + (frames - 1) * time, height * rows, width * columns)
    for start, stop in spans(x, frames, time):
        if start == 0:  # the first frame stays single
            times = {FIRST: out[:, :, :1]}
        elif time == 1:
            times = {causal(start): out[:, :, start:stop]}
        else:
            first, last = 2 * start - 1, 2 * stop - 1
            times = {ODD: out[:, :, first:last:2], EVEN: out[:, :, first + 1 : last + 1 : 2]}
        seen = padded(x[:, :, max(start - len(next(iter(times))[0]) + 1, 0) : stop])
        for (by_time, place), (row, by_row), (column, by_column) in product(
            times.items(), enumerate(DOUBLED[rows]), enumerate(DOUBLED[columns])
        ):
            part = seen[..., row : row + height + 3 - rows, column : column + width + 3 - columns]
            piece = conv3d(part, fold(conv.weight, by_time, by_row, by_column), conv.bias)
            place[:, :, :, row::rows, column::columns] = piece
    return out


def convolve(layer: CausalConv3d, x: Tensor, norm: nn.GroupNorm | None = None) -> Tensor:
    """`layer(silu(norm(x)))`, or `layer(x)` without a norm."""
    out: Tensor | None = None
    for start, stop, piece in convolved_spans(layer, x, norm):
        if out is None:
            if start == 0:
                return piece
            out = piece.new_empty(*piece.shape[:2], stop, *piece.shape[3:])
        out[:, :, start:stop] = piece
    assert out is not None  # a clip has at least one span
    return out


def convolved_spans(
    layer: CausalConv3d, x: Tensor, norm: nn.GroupNorm | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """Frames `start` to `stop` of `layer(silu(norm(x)))`, the last ones first.

    Once a span is yielded, x is not read from its first frame on, so the caller may overwrite it.
    """
    conv, (stride, *_) = layer.conv, layer.conv.stride
    normal = None if norm is None else Normal.of(norm, x)
    ready: Tensor | None = None
    since = x.shape[2]  # input frames from `since` on that are activated and padded
    for start, stop in reversed(spans(x, (x.shape[2] - 1) // stride + 1, stride)):
        weight = fold(conv.weight, causal(start * stride), EACH, EACH)
        last = (stop - 1) * stride + 1
        first = last - (stop - start - 1) * stride - weight.shape[2]
        parts = [] if ready is None else [ready[:, :, : last - since]]
        if first < since:
            fresh = x[:, :, first : min(since, last)]
            parts.insert(0, padded(fresh, normal))
        inputs = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        ready, since = inputs[:, :, :2].clone(), first
        yield start, stop, conv3d(inputs, weight, conv.bias, conv.stride)


def spans(x: Tensor, frames: int, stride: int) -> list[tuple[int, int]]:
    """Spans of frames with one kernel each: frame 0, frame 1 if it sees frame 0 twice, pieces of the rest."""
    heads = [(at, at + 1) for at in range(min(frames, 2 if stride == 1 else 1))]
    frame_bytes = x[:, :, 0].numel() * x.element_size() * stride
    length = max(PIECE // frame_bytes, 1)
    return heads + [(at, min(at + length, frames)) for at in range(len(heads), frames, length)]


def causal(frame: int) -> Taps:
    """How the kernel meets the frames before `frame`, the first of the clip being repeated before it."""
    return (FIRST, ODD, EACH)[min(frame, 2)]


def fold(weight: Tensor, *axes: Taps) -> Tensor:
    """The kernel [out, in, T, H, W] with the taps of each axis summed that meet the same value."""
    if all(taps == EACH for taps in axes):
        return weight
    time, rows, columns = (weight.new_tensor(taps) for taps in axes)
    sums = torch.kron(torch.kron(time, rows), columns)
    out: Tensor = (weight.flatten(2) @ sums).unflatten(2, [len(taps[0]) for taps in axes])
    return out


@dataclass(frozen=True)
class Normal:
    """Group normalisation of a tensor: its mean, a factor and a summand per channel, each [B, C, 1, 1, 1]."""

    mean: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: nn.GroupNorm, x: Tensor) -> Normal:
        kind = torch.promote_types(x.dtype, torch.float32)
        groups, each = norm.num_groups, norm.num_channels // norm.num_groups
        frames = [x[:, :, frame].flatten(2) for frame in range(x.shape[2])]  # [B, C, H*W]
        count = each * x.shape[2] * frames[0].shape[2]

        def per_channel(sums: list[Tensor]) -> Tensor:
            means = torch.stack(sums).double().sum(0).unflatten(1, (groups, each)).sum(2) / count
            out: Tensor = means.repeat_interleave(each, 1)[..., None]
            return out

        # Twice over the tensor, summing the rows' sums in double: a one-pass variance loses its digits on
        # flat pictures, and `var_mean` takes several times as long.
        mean = per_channel([frame.sum(-1, dtype=kind) for frame in frames]).to(kind)
        spread = [torch.linalg.vector_norm(frame - mean, dim=-1).double().square() for frame in frames]
        scale = norm.weight[:, None] / (per_channel(spread) + norm.eps).sqrt()
        values = mean, scale, norm.bias[:, None].expand_as(mean)
        return cls(*(value.to(kind)[..., None, None] for value in values))

    def activate(self, x: Tensor) -> Tensor:
        """silu(norm(x)) for any frames of the tensor."""
        x = torch.sub(x, self.mean)
        torch.addcmul(self.shift, x, self.scale, out=x)
        return F.silu(x, inplace=True)


def padded(x: Tensor, normal: Normal | None = None) -> Tensor:
    """x, normalised and activated if asked, with the pixels at its edges repeated once."""
    out = x.new_empty(*x.shape[:3], x.shape[3] + 2, x.shape[4] + 2)
    inner = out[..., 1:-1, 1:-1]
    for frame in range(x.shape[2]):  # one by one, as what is computed on the way takes memory too
        here = x[:, :, frame : frame + 1]
        inner[:, :, frame : frame + 1] = here if normal is None else normal.activate(here)
    out[..., 0, 1:-1], out[..., -1, 1:-1] = inner[..., 0, :], inner[..., -1, :]
    out[..., 0], out[..., -1] = out[..., 1], out[..., -2]
    return out


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
    """A convolution without padding."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # For one small clip PyTorch's own choice is an implementation six times slower.
        return torch.mkldnn_convolution(x, weight, bias, (0, 0, 0), stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride)
