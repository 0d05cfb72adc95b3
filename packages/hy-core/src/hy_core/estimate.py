"""What a run will cost before it starts: tokens, operations, memory, and seconds on this machine.

A multiply-add is two operations. The counts follow the layers; memory counts weights exactly and activations
by the tensors alive at the widest place; time comes from a measurement of a second or so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hy_core.errors import MemoryLimitError
from hy_core.request import Request

if TYPE_CHECKING:
    import torch

    from hy_core.dit.config import DiTConfig
    from hy_core.vae.config import VAEConfig

# Multiples of the hidden width alive per token inside a block: the stream, qkv, the MLP before and after its
# activation, and what attention gives back.
ALIVE_IN_BLOCK = 16
# Tensors as large as the widest of the decoder alive at once, convolution buffers included.
ALIVE_IN_DECODER = 6
BUDGET = 4e9  # operations of one measurement on a CPU: under a tenth of a second


@dataclass(frozen=True)
class Estimate:
    """The cost of one batch of clips; memory in bytes, `seconds` None when the machine was not measured."""

    latent: tuple[int, int, int]
    video_tokens: int
    text_tokens: int
    rows: int
    evaluations: int
    dit_parameters: int
    step_flops: float
    decode_flops: float
    weights_bytes: int
    peak_bytes: int
    seconds: float | None = None

    @property
    def flops(self) -> float:
        """All operations of the run."""
        return self.evaluations * self.step_flops + self.decode_flops

    def summary(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "latent": list(self.latent), "flops": self.flops}

    def lines(self) -> list[str]:
        """For people."""
        f, h, w = self.latent
        found = [
            f"tokens      {self.video_tokens:,} of video ({f}x{h}x{w} latent) and {self.text_tokens} of text",
            f"operations  {scaled(self.flops)}FLOP: {self.evaluations} x {scaled(self.step_flops)}FLOP "
            f"and {scaled(self.decode_flops)}FLOP to decode",
            f"memory      about {scaled(self.peak_bytes)}B, of it weights {scaled(self.weights_bytes)}B",
        ]
        return found + ([f"time        about {duration(self.seconds)}"] if self.seconds is not None else [])


def estimate(
    request: Request,
    dit: DiTConfig,
    vae: VAEConfig,
    batch: int = 1,
    text_tokens: int | None = None,
    dtype_bytes: int = 4,
    text_bytes: int = 0,
    context_frames: int = 0,
) -> Estimate:
    """The cost of `batch` clips in one go; `text_bytes` are the weights of the text encoders."""
    f, h, w = vae.latent_size(request.frames, request.height, request.width)
    pt, ph, pw = dit.patch
    tokens = (f + context_frames) // pt * (h // ph) * (w // pw)
    text = min(max(len(request.prompt) // 4, 8), 256) if text_tokens is None else text_tokens
    rows = batch * (2 if request.cfg != 1.0 else 1)
    calls = 2 * request.steps - 1 if request.sampler == "heun" else request.steps
    parameters = dit_parameters(dit)
    weights = dtype_bytes * (parameters + vae_parameters(vae))
    widest = max(
        c * t * y * x for c, t, y, x in decoder_shapes(vae, min(f, tile_frames(request, vae, f)), h, w)
    )
    if request.tiling in ("official", "diffusers"):
        side = vae.sample_size // vae.space
        widest = max(widest * min(h, side) * min(w, side) // (h * w), 1)
    alive = dtype_bytes * max(
        rows * (tokens + text) * dit.width * ALIVE_IN_BLOCK + rows * tokens * 16 * 8,
        batch * widest * ALIVE_IN_DECODER,
    )
    frames_bytes = batch * request.frames * request.height * request.width * 3 * 5
    peak = max(text_bytes, weights + alive + frames_bytes)
    return Estimate(
        (f, h, w),
        tokens,
        text,
        rows,
        calls,
        parameters,
        rows * forward_flops(dit, tokens, text),
        batch * decode_flops(vae, f, h, w),
        weights,
        peak,
    )


def tile_frames(request: Request, vae: VAEConfig, frames: int) -> int:
    """Latent frames that the decoder holds at once."""
    tiles = {"official": vae.sample_frames // vae.time + 1, "diffusers": 16 // vae.time + 1}
    return tiles.get(request.tiling, frames)


def forward_flops(dit: DiTConfig, tokens: int, text: int) -> float:
    """One evaluation of the network for one row: linear layers, attention, and the text refiner's share."""
    both, blocks = tokens + text, dit.depth_double + dit.depth_single
    per_token = 2 * dit.width**2 * (4 + 2 * dit.mlp_ratio)
    attention = 4.0 * both**2 * dit.width
    refiner = dit.depth_refiner * (text * per_token + 4.0 * text**2 * dit.width)
    ends = 2.0 * tokens * dit.width * (dit.in_channels + dit.out_channels) * volume(dit.patch)
    return blocks * (both * per_token + attention) + refiner + ends


def dit_parameters(dit: DiTConfig) -> int:
    """Weights of the network, biases and small norms left out (under 1%)."""
    square, mlp = dit.width**2, 2 * dit.mlp_ratio
    double = 2 * (6 + 4 + mlp) * square
    single = (3 + 4 + mlp) * square
    refiner = (2 + 4 + mlp) * square
    embed = dit.width * (
        3 * dit.text_dim + dit.pooled_dim + 3 * 256 + 2 * dit.in_channels * volume(dit.patch)
    )
    embed += (8 + (1 if dit.guidance else 0)) * square
    return int(dit.depth_double * double + dit.depth_single * single + dit.depth_refiner * refiner + embed)


def volume(patch: tuple[int, int, int]) -> int:
    return patch[0] * patch[1] * patch[2]


def decoder_convolutions(vae: VAEConfig, t: int, h: int, w: int) -> list[tuple[int, int, int, int]]:
    """Every 3x3x3 convolution of the decoder as (channels in, channels out, voxels out, how many)."""
    channels = vae.channels[::-1]
    found = [(vae.latent_channels, channels[0], t * h * w, 1), (channels[0], channels[0], t * h * w, 4)]
    before = channels[0]
    for width, (ft, fh, fw) in zip(channels, vae.strides(), strict=True):
        found += [(before, width, t * h * w, 1), (width, width, t * h * w, 2 * (vae.layers + 1) - 1)]
        before = width
        if (ft, fh, fw) != (1, 1, 1):
            t, h, w = 1 + (t - 1) * ft, h * fh, w * fw
            found.append((width, width, t * h * w, 1))
    return [*found, (before, vae.out_channels, t * h * w, 1)]


def decoder_shapes(vae: VAEConfig, t: int, h: int, w: int) -> list[tuple[int, int, int, int]]:
    """Channels, frames, height and width after each enlargement of the decoder."""
    channels = vae.channels[::-1]
    found = [(channels[0], t, h, w)]
    for width, (ft, fh, fw) in zip(channels, vae.strides(), strict=True):
        t, h, w = 1 + (t - 1) * ft, h * fh, w * fw
        found.append((width, t, h, w))
    return found


def decode_flops(vae: VAEConfig, t: int, h: int, w: int) -> float:
    """One decoding of a latent clip [t, h, w]."""
    convolutions = sum(
        54.0 * a * b * voxels * count for a, b, voxels, count in decoder_convolutions(vae, t, h, w)
    )
    attention = 4.0 * (t * h * w) ** 2 * vae.channels[-1] + 8.0 * t * h * w * vae.channels[-1] ** 2
    return convolutions + attention


def vae_parameters(vae: VAEConfig) -> int:
    """Weights of decoder and encoder (the encoder has one block less per stage)."""
    decoder = sum(27 * a * b * count for a, b, _, count in decoder_convolutions(vae, 1, 1, 1))
    return int(decoder * (1 + vae.layers / (vae.layers + 1)))


def check_memory(expected: Estimate, device: torch.device) -> None:
    """Raise `MemoryLimitError` when weights and activations clearly can't fit (it is an estimate)."""
    from hy_core.device import free_memory

    free = free_memory(device)
    if expected.peak_bytes > 1.25 * free:
        f, h, w = expected.latent
        raise MemoryLimitError(
            f"not enough memory for {f}x{h}x{w} latents and {scaled(expected.dit_parameters)}weights "
            f"(needs about {scaled(expected.peak_bytes)}B, {scaled(free)}B are free)",
            "try a smaller --size, fewer --frames, --dtype bf16 or --tiling official",
        )


# -- this machine ----------------------------------------------------------------------------------------


def seconds(
    expected: Estimate,
    request: Request,
    dit: DiTConfig,
    vae: VAEConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Seconds of sampling and decoding on this machine, from its rates for shapes like these."""
    block = block_seconds(dit, expected.video_tokens + expected.text_tokens, expected.rows, device, dtype)
    step = block * (dit.depth_double + dit.depth_single + 1)
    f, h, w = expected.latent
    batch = expected.rows // (2 if request.cfg != 1.0 else 1)
    rates: dict[int, float] = {}
    decoding = 0.0
    for a, b, voxels, count in decoder_convolutions(vae, f, h, w):
        width = max(a, b)
        if width not in rates:
            rates[width] = convolution_rate(width, device, dtype)
        decoding += batch * 54.0 * a * b * voxels * count / rates[width]
    return expected.evaluations * step + decoding


def block_seconds(dit: DiTConfig, tokens: int, rows: int, device: torch.device, dtype: torch.dtype) -> float:
    """One block on rows of `tokens`: measured whole when small, scaled up from a part when large."""
    import torch
    import torch.nn.functional as F

    budget = BUDGET if device.type == "cpu" else 100 * BUDGET
    width, heads = dit.width, dit.heads
    hidden = int(dit.width * dit.mlp_ratio)
    per_token = 2 * width**2 * (4 + 2 * dit.mlp_ratio)
    part = min(tokens * rows, max(int(budget / per_token), 16))
    seen = min(tokens, int((budget / (4 * width)) ** 0.5))
    x = torch.full((1, part, width), 0.1, device=device, dtype=dtype)
    into = torch.full((3 * width + hidden, width), 0.1, device=device, dtype=dtype)
    out = torch.full((width, width + hidden), 0.1, device=device, dtype=dtype)
    shape = (1 if seen < tokens else rows, heads, seen, width // heads)
    q = torch.full(shape, 0.1, device=device, dtype=dtype)
    share = rows * tokens**2 / (q.shape[0] * seen**2)

    def linear() -> None:
        y = F.linear(F.layer_norm(x, (width,)) * 1.5 + 0.5, into)
        qkv, mlp = y.split([3 * width, hidden], -1)
        F.layer_norm(qkv.unflatten(-1, (3, heads, -1)), (width // heads,)) * 0.5 + 0.5
        torch.add(x, F.linear(torch.cat([qkv[..., :width], F.gelu(mlp, approximate="tanh")], -1), out) * 0.5)

    def attention() -> None:
        F.scaled_dot_product_attention(q, q, q)

    with torch.inference_mode():
        return took(linear, device) * tokens * rows / part + took(attention, device) * share


def convolution_rate(width: int, device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a 3x3x3 convolution of `width` channels."""
    import torch
    import torch.nn.functional as F

    budget = BUDGET / 16 if device.type == "cpu" else 10 * BUDGET
    side = max(int((budget / (54.0 * width**2) / 4) ** 0.5), 4)
    x = torch.randn(1, width, 6, side + 2, side + 2, device=device, dtype=dtype)
    kernel = torch.randn(width, width, 3, 3, 3, device=device, dtype=dtype)
    with torch.inference_mode():
        return 54.0 * width**2 * 4 * side**2 / took(lambda: F.conv3d(x, kernel), device)


def took(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: the best of a few after a warm one, within a tenth of a second or so."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    spent = [once()]
    while len(spent) < 3 or (len(spent) < 8 and sum(spent) < 0.1):
        spent.append(once())
    return min(spent)


def scaled(amount: float) -> str:
    """A number with a prefix: `12.07 P`."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{amount / size:.3g} {prefix}"
    return f"{amount:.0f} "


def duration(seconds: float) -> str:
    """Seconds in words: `1:27 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min"
