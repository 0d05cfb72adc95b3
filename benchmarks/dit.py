"""One DiT step: ours against diffusers' HunyuanVideoTransformer3DModel with the same weights, in one process.

    python benchmarks/dit.py                     # 1,536 tokens, fp32 and bf16
    python benchmarks/dit.py --frames 14 --dtype bf16 --repeats 3

Width 768 in heads of 128, 4 double and 8 single blocks, 256 text tokens of which 30 are valid. Runs alternate;
medians of CPU seconds on one thread, which a shared machine disturbs least. What our `prepare` does once per run
is outside the step and shown beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import HunyuanVideoTransformer3DModel
from hy_core.dit import DiT, DiTConfig
from hy_core.weights.keys import DIFFUSERS

CONFIG = DiTConfig(width=768, heads=6, depth_double=4, depth_single=8)
TEXT, VALID = 256, 30


def models(dtype: torch.dtype) -> tuple[DiT, HunyuanVideoTransformer3DModel]:
    """Ours with small random weights, and theirs with the same."""
    torch.manual_seed(0)
    ours = DiT(CONFIG)
    for parameter in ours.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    ours = ours.to(dtype).eval().requires_grad_(False)
    with torch.device("meta"):
        theirs = HunyuanVideoTransformer3DModel(
            num_attention_heads=CONFIG.heads,
            attention_head_dim=CONFIG.head_dim,
            num_layers=CONFIG.depth_double,
            num_single_layers=CONFIG.depth_single,
            text_embed_dim=CONFIG.text_dim,
            pooled_projection_dim=CONFIG.pooled_dim,
        )
    theirs.load_state_dict(dict(DIFFUSERS.export(ours.state_dict(), CONFIG.width)), assign=True)
    return ours, theirs.eval().requires_grad_(False)


def seconds(call: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


@torch.inference_mode()
def compare(dtype: torch.dtype, frames: int, side: int, repeats: int, kernel: str) -> dict[str, float]:
    """Median seconds of both, their ratio, and how far the velocities are apart."""
    ours, theirs = models(dtype)
    latents = torch.randn(1, 16, frames, side, side).to(dtype)
    text, pooled = (
        torch.randn(1, TEXT, CONFIG.text_dim).to(dtype),
        torch.randn(1, CONFIG.pooled_dim).to(dtype),
    )
    mask = (torch.arange(TEXT) < VALID)[None]
    guidance, now = torch.tensor([6016.0]), torch.tensor([[0.7]], dtype=torch.float64)

    def run_theirs() -> torch.Tensor:
        return theirs(
            latents,
            (now[:, 0] * 1000).round().to(dtype),
            text,
            mask,
            pooled,
            guidance.to(dtype),
            return_dict=False,
        )[0]

    def prepare() -> object:
        return ours.prepare(
            [text[0, :VALID]], pooled, torch.arange(frames), (side, side), guidance, attention=kernel
        )

    prepared = prepare()

    def run_ours() -> torch.Tensor:
        return ours(latents, now.expand(1, frames), prepared)

    times: dict[str, list[float]] = {"theirs": [], "ours": [], "prepare": []}
    run_ours(), run_theirs()
    for _ in range(repeats):
        spent, expected = seconds(run_theirs)
        times["theirs"].append(spent)
        spent, found = seconds(run_ours)
        times["ours"].append(spent)
        times["prepare"].append(seconds(prepare)[0])
    row = {name: statistics.median(values) for name, values in times.items()}
    row["ratio"] = row["theirs"] / row["ours"]
    row["error"] = float((found - expected).float().norm() / expected.float().norm())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=6, help="latent frames of 256 tokens each")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "both"], default="both")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--attention", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    print("| dtype | tokens | diffusers, s | hy, s | faster | prepare once, s | relative difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, dtype in dtypes.items():
        if options.dtype in (name, "both"):
            row = compare(dtype, options.frames, 32, options.repeats, options.attention)
            print(
                f"| {name} | {256 * options.frames:,} | {row['theirs']:.2f} | {row['ours']:.2f} "
                f"| {row['ratio']:.2f}x | {row['prepare']:.3f} | {row['error']:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
