"""Seconds of a run on this machine, from a short measurement of shapes like its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hy_core.estimate.cost import Estimate
from hy_core.estimate.count import decoder_convolutions
from hy_core.request import Request

if TYPE_CHECKING:
    import torch

    from hy_core.dit.config import DiTConfig
    from hy_core.vae.config import VAEConfig

BUDGET = 4e9  # operations of one measurement on a CPU: under a tenth of a second


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
    for channels_in, channels_out, voxels in decoder_convolutions(vae, f, h, w):
        width = max(channels_in, channels_out)
        if width not in rates:
            rates[width] = convolution_rate(width, device, dtype)
        decoding += batch * 54.0 * channels_in * channels_out * voxels / rates[width]
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
