"""VAE beside the diffusers package: same weights, same process, alternating; prints a Markdown table.

    python benchmarks/vae.py --frames 9 --size 128 --repeats 3

Times are processor seconds (medians), so that other programs on the machine change them little. Memory is
what a fresh process holds at most during one call beyond what it held before (no weights, no inputs).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
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
    for name, (theirs, ours) in ((name, pair.values()) for name, pair in calls(args).items()):
        if args.only and args.only not in name:
            continue
        with torch.inference_mode():
            difference = (theirs() - ours()).abs().max().item()
            times = [[seconds(call, args.device) for call in (theirs, ours)] for _ in range(args.repeats)]
        slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
        high, low = (peak(args, name, who) for who in ("diffusers", "hy"))
        print(
            f"| {name} | {slow:.2f} s | {fast:.2f} s | {slow / fast:.2f}x "
            f"| {high / 2**20:.0f} MiB | {low / 2**20:.0f} MiB | {low / high:.2f} | {difference:.1e} |",
            flush=True,
        )


def seconds(call: Callable[[], Tensor], device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(args: argparse.Namespace, name: str, who: str) -> int:
    """Extra bytes during one call in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", f"{name}/{who}"]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def measure(args: argparse.Namespace) -> None:
    name, who = args.measure.split("/")
    call = calls(args)[name][who]
    with torch.inference_mode():
        if args.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            print(torch.cuda.max_memory_allocated() - before)
            return
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
        before = resident("VmRSS")
        call()
        print(resident("VmHWM") - before)


def resident(field: str) -> int:
    """A size that the kernel keeps of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="884-16c-hy", choices=VAEConfig.named)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", help="only operations whose name contains this")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    (measure if arguments.measure else compare)(arguments)
