"""The cost of a run from its shapes: tokens, operations and memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hy_core.errors import MemoryLimitError
from hy_core.estimate.count import decode_flops, decoder_shapes, dit_parameters, forward_flops, vae_parameters
from hy_core.request import Request

if TYPE_CHECKING:
    import torch

    from hy_core.dit.config import DiTConfig
    from hy_core.vae.config import VAEConfig

# Multiples of the hidden width alive per token inside a block: the stream, qkv, the MLP before and after its
# activation, and the output of attention.
ALIVE_IN_BLOCK = 16
# Tensors as large as the decoder's largest alive at once, convolution buffers included.
ALIVE_IN_DECODER = 6


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
        """The cost in readable lines."""
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
    """The cost of `batch` clips in one go; `text_bytes` are the weights of the text encoders.

    A multiply-add is two operations. Operations and weights are counted on the networks' own modules; activations by
    the tensors alive at the largest place.
    """
    f, h, w = vae.latent_size(request.frames, request.height, request.width)
    pt, ph, pw = dit.patch
    frames, tokens = (f + context_frames) // pt, (f + context_frames) // pt * (h // ph) * (w // pw)
    text = min(max(len(request.prompt) // 4, 8), 256) if text_tokens is None else text_tokens
    rows = batch * (2 if request.cfg != 1.0 else 1)
    calls = 2 * request.steps - 1 if request.sampler == "heun" else request.steps
    parameters = dit_parameters(dit)
    weights = dtype_bytes * (parameters + vae_parameters(vae))
    largest = max(
        c * t * y * x for c, t, y, x in decoder_shapes(vae, min(f, tile_frames(request, vae, f)), h, w)
    )
    if request.tiling in ("official", "diffusers"):
        side = vae.sample_size // vae.space
        largest = max(largest * min(h, side) * min(w, side) // (h * w), 1)
    alive = dtype_bytes * max(
        rows * (tokens + text) * dit.width * ALIVE_IN_BLOCK + rows * tokens * 16 * 8,
        batch * largest * ALIVE_IN_DECODER,
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
        rows * forward_flops(dit, tokens, text, frames),
        batch * decode_flops(vae, f, h, w),
        weights,
        peak,
    )


def decoder_bytes(vae: VAEConfig, latent: tuple[int, int, int], dtype_bytes: int) -> int:
    """Memory to decode latents (frames, height, width) whole."""
    largest = max(c * t * h * w for c, t, h, w in decoder_shapes(vae, *latent))
    return ALIVE_IN_DECODER * largest * dtype_bytes


def tile_frames(request: Request, vae: VAEConfig, frames: int) -> int:
    """Latent frames that the decoder holds at once."""
    tiles = {"official": vae.sample_frames // vae.time + 1, "diffusers": 16 // vae.time + 1}
    return tiles.get(request.tiling, frames)


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
