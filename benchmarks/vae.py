"""VAE beside the diffusers package: same weights, same process, alternating; prints a Markdown table.

    python benchmarks/vae.py --frames 9 --size 128 --repeats 3

Times on a CPU are processor seconds (medians), so that other programs on the machine change them little.
Memory is the most that a call holds beyond what was held before it (no weights, no inputs).
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo
from hy_core.vae import VAE, Tiling, VAEConfig
from torch import Tensor


def calls(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """What to measure: for each operation, the same work done by either package."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    config = VAEConfig.named[args.model]
    ours = VAE(config).eval().requires_grad_(False).to(args.device, dtype)
    theirs = AutoencoderKLHunyuanVideo(
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
        latent_channels=config.latent_channels,
    )
    theirs.load_state_dict(ours.state_dict(), assign=True)
    theirs = theirs.eval().requires_grad_(False)
    pixels = torch.rand(1, 3, args.frames, args.size, args.size).to(args.device, dtype) * 2 - 1
    latents = torch.randn(1, config.latent_channels, *config.latent_size(args.frames, args.size, args.size))
    latents = latents.to(args.device, dtype)

    def whole(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            theirs.use_framewise_decoding = theirs.use_framewise_encoding = theirs.use_tiling = False
            return call()

        return run

    def tiled(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            theirs.use_framewise_decoding = theirs.use_framewise_encoding = True
            theirs.enable_tiling()
            return call()

        return run

    def encode() -> Tensor:
        return theirs._encode(pixels)

    def decode() -> Tensor:
        return theirs._decode(latents).sample

    return {
        "decode, whole": {"diffusers": whole(decode), "hy": lambda: ours.decode(latents)},
        "decode, diffusers' tiles": {
            "diffusers": tiled(decode),
            "hy": lambda: ours.decode(latents, Tiling.DIFFUSERS),
        },
        "encode, whole": {"diffusers": whole(encode), "hy": lambda: ours.moments(pixels)},
    }


def compare(args: argparse.Namespace) -> None:
    setup = f"{args.dtype}, {args.device}, {args.threads} thread(s), torch {torch.__version__}"
    print(f"{args.model}, {args.frames}x{args.size}x{args.size}, {setup}\n")
    print("| | diffusers | hy | speed | peak memory, diffusers | hy | ratio | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    watch = on_cpu if args.device == "cpu" else on_gpu
    for name, (theirs, ours) in ((name, pair.values()) for name, pair in calls(args).items()):
        if args.only and args.only not in name:
            continue
        runs = []
        for _ in range(args.repeats):
            with torch.inference_mode():
                (slow, high, expected), (fast, low, found) = watch(theirs), watch(ours)
            runs.append((slow, fast, high, low))
        difference = (found - expected).abs().max().item()
        slow, fast, high, low = (statistics.median(column) for column in zip(*runs, strict=True))
        print(
            f"| {name} | {slow:.2f} s | {fast:.2f} s | {slow / fast:.2f}x "
            f"| {high / 2**20:.0f} MiB | {low / 2**20:.0f} MiB | {low / high:.2f} | {difference:.1e} |",
            flush=True,
        )


def on_cpu(call: Callable[[], Tensor]) -> tuple[float, int, Tensor]:
    """Processor seconds, bytes beyond those held before, and the result (Linux)."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # and the peak so far is forgotten
    before, start = resident("VmRSS"), time.process_time()
    result = call()
    return time.process_time() - start, resident("VmHWM") - before, result


def on_gpu(call: Callable[[], Tensor]) -> tuple[float, int, Tensor]:
    """Seconds, bytes beyond those held before, and the result."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    result = call()
    torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before, result


def resident(field: str) -> int:
    """A size that the kernel keeps of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    theirs = [name for name, config in VAEConfig.named.items() if config.space == 8]  # diffusers has no other
    parser.add_argument("--model", default="884-16c-hy", choices=theirs)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", help="only operations whose name contains this")
    compare(parser.parse_args())
