"""The same encoder and decoder without gradients: fewer multiplications, less memory, equal results.

- A convolution runs over pieces of time, last piece first. Being causal, it never comes back to the frames of
  a piece it has done, so that a result can take the place of what it was made from.
- Normalisation is two numbers per channel, applied with the activation as a convolution reads each piece.
- The frames repeated before the first are never made: taps of a kernel that meet the same frame are summed.
- Nor is a picture enlarged before a convolution: along a doubled axis two of the three taps meet the same
  value, so that even and odd outputs are two convolutions of the small picture, with two taps each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_core.vae.layers import CausalConv3d, MidBlock, ResnetBlock, Upsample

#: How much a convolution reads at a time [bytes]. Smaller pieces save memory, larger ones calls.
PIECE = 32 * 2**20

#: Which of the values that a kernel sees along an axis (columns) its three taps (rows) meet.
Taps = tuple[tuple[int, ...], ...]
EACH: Taps = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
FIRST: Taps = ((1,), (1,), (1,))
ODD: Taps = ((1, 0), (1, 0), (0, 1))
EVEN: Taps = ((1, 0), (0, 1), (0, 1))
#: The kernels along an axis enlarged by a factor, for each output that one input becomes.
DOUBLED: dict[int, tuple[Taps, ...]] = {1: (EACH,), 2: (EVEN, ODD)}


def encode(encoder: nn.Module, x: Tensor) -> Tensor:
    """What `encoder(x)` returns."""
    x = convolve(encoder.conv_in, x)
    for block in encoder.down_blocks:
        for layer in block.resnets:
            x = resnet(layer, x)
        for layer in block.downsamplers:
            x = convolve(layer.conv, x)
    return convolve(encoder.conv_out, middle(encoder.mid_block, x), encoder.conv_norm_out)


def decode(decoder: nn.Module, z: Tensor) -> Tensor:
    """What `decoder(z)` returns."""
    x = middle(decoder.mid_block, convolve(decoder.conv_in, z))
    for block in decoder.up_blocks:
        for layer in block.resnets:
            x = resnet(layer, x)
        for layer in block.upsamplers:
            x = upsample(layer, x)
    return convolve(decoder.conv_out, x, decoder.conv_norm_out)


def middle(block: MidBlock, x: Tensor) -> Tensor:
    """What `block(x)` returns; x is spent."""
    x = resnet(block.resnets[0], x)
    for attention in block.attentions:
        x = attention(x)
    return resnet(block.resnets[1], x)


def resnet(block: ResnetBlock, x: Tensor) -> Tensor:
    """What `block(x)` returns; x is spent, its memory holding the result where the width stays."""
    inner = convolve(block.conv1, x, block.norm1)
    if block.conv_shortcut is None:
        for start, stop, piece in pieces(block.conv2, inner, block.norm2):
            x[:, :, start:stop] += piece
        return x
    skip = block.conv_shortcut.conv
    for start, stop, piece in pieces(block.conv2, inner, block.norm2):
        piece += conv3d(x[:, :, start:stop], skip.weight, skip.bias)
        inner[:, :, start:stop] = piece
    return inner


def upsample(layer: Upsample, x: Tensor) -> Tensor:
    """What `layer(x)` returns, from the small x itself."""
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
    """What `layer(silu(norm(x)))` returns, or `layer(x)` without a norm."""
    out = None
    for start, stop, piece in pieces(layer, x, norm):
        if out is None:
            if start == 0:
                return piece
            out = piece.new_empty(*piece.shape[:2], stop, *piece.shape[3:])
        out[:, :, start:stop] = piece
    return out


def pieces(
    layer: CausalConv3d, x: Tensor, norm: nn.GroupNorm | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """Frames `start` to `stop` of `layer(silu(norm(x)))`, the last ones first.

    When a piece is given out, x is no longer needed from its first frame on.
    """
    conv, (stride, *_) = layer.conv, layer.conv.stride
    affine = None if norm is None else scale_and_shift(norm, x)
    for start, stop in reversed(spans(x, (x.shape[2] - 1) // stride + 1, stride)):
        weight = fold(conv.weight, causal(start * stride), EACH, EACH)
        first = start * stride - (weight.shape[2] - 1)
        seen = padded(x[:, :, first : (stop - 1) * stride + 1], affine)
        yield start, stop, conv3d(seen, weight, conv.bias, conv.stride)


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
    return (weight.flatten(2) @ sums).unflatten(2, [len(taps[0]) for taps in axes])


def scale_and_shift(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Group normalisation of x as a factor and a summand per channel, each [B, C, 1, 1, 1] in float32."""
    kind = torch.promote_types(x.dtype, torch.float32)
    rows = [x[:, :, frame].flatten(2) for frame in range(x.shape[2])]
    # Sums over one row at a time in the tensor's own precision, over rows in double: as exact as a two-pass
    # variance for activations, at a tenth of its time.
    mean = torch.stack([row.mean(-1, dtype=kind) for row in rows], -1).double()
    square = (
        torch.stack([torch.linalg.vector_norm(row, dim=-1, dtype=kind) for row in rows], -1).double().square()
    )
    mean = mean.unflatten(1, (norm.num_groups, -1)).mean((2, 3))
    square = square.unflatten(1, (norm.num_groups, -1)).mean((2, 3)) / rows[0].shape[-1]
    deviation = (square - mean.square()).clamp_min(0).add(norm.eps).sqrt()
    each = norm.num_channels // norm.num_groups
    scale = norm.weight / deviation.repeat_interleave(each, 1)
    shift = norm.bias - mean.repeat_interleave(each, 1) * scale
    return tuple(value.to(kind)[..., None, None, None] for value in (scale, shift))


def padded(x: Tensor, affine: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """x, or silu(x * scale + shift), with the pixels at its edges repeated once."""
    batch, channels, frames, height, width = x.shape
    out = x.new_empty(batch, channels, frames, height + 2, width + 2)
    inner = out[..., 1:-1, 1:-1]
    if affine is None:
        inner.copy_(x)
    else:
        scale, shift = affine
        torch.addcmul(shift, x, scale, out=inner)
        F.silu(inner, inplace=True)
    out[..., 0, 1:-1], out[..., -1, 1:-1] = inner[..., 0, :], inner[..., -1, :]
    out[..., 0], out[..., -1] = out[..., 1], out[..., -2]
    return out


def conv3d(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    """A convolution without padding."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # For one small clip PyTorch's own choice is an implementation six times slower.
        return torch.mkldnn_convolution(x, weight, bias, (0, 0, 0), stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride)
