"""Training steps of a DiT: `hy train` against diffusers' transformer in a plain Lightning loop, in one run.

    python benchmarks/train.py                       # width 384, 6 blocks, 512 tokens, batch 2, fp32
    python benchmarks/train.py --precision bf16-mixed --width 768 --rounds 5

Both have the same weights, clips, captions (30 valid tokens, which the other pads to 256 and masks), batch, precision
and AdamW. Each side runs in processes of its own, in turns; the median of the rounds is shown. Samples a second are of
CPU seconds on one thread, which a shared machine disturbs least, or of wall seconds on a GPU. Peak memory is that of
the process after the imports (CPU), or what the allocator reached (GPU). The last row is the share of a step of
`hy train` outside of forward, backward and optimiser.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hy_core.dit import DiT, DiTConfig

TEXT, VALID, FRAMES, SIDE, CHANNELS = 256, 30, 2, 32, 16


def config(width: int) -> DiTConfig:
    return DiTConfig(width=width, heads=width // 128, depth_double=2, depth_single=4, text_dim=512)


def initial(width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    dit = DiT(config(width))
    for weight in dit.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.02)
    return dit.state_dict()


def batch(step: int, rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "latents": torch.randn(rows, CHANNELS, FRAMES, SIDE, SIDE, generator=generator),
        "noise": torch.randn(rows, CHANNELS, FRAMES, SIDE, SIDE, generator=generator),
        "text": torch.randn(rows, TEXT, 512, generator=generator),
        "pooled": torch.randn(rows, 768, generator=generator),
        "time": torch.rand(rows, generator=generator),
    }


class Clock:
    """CPU seconds on the CPU, wall seconds on a GPU, of what is between `start` and `stop`."""

    def __init__(self) -> None:
        self.total, self.began = 0.0, 0.0

    @staticmethod
    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def start(self) -> None:
        self.began = self.now()

    def stop(self) -> None:
        self.total += self.now() - self.began


def memory(before: int) -> float:
    """Bytes at the peak, since the imports."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def run_ours(options: argparse.Namespace) -> dict[str, float]:
    """Steps of `hy_train.fit.run`, with its checks, averages, logs and checkpoints."""
    from hy_core.condition import Condition
    from hy_core.dit import embedded_guidance
    from hy_core.flow.denoise import Denoiser
    from hy_core.flow.path import interpolate, velocity
    from hy_core.training import Objective
    from hy_train import recipe
    from hy_train.fit import run
    from hy_train.optim import MuonAdamW

    spent, marks = Clock(), []
    warm = 2

    class Steps(Objective[dict[str, torch.Tensor]]):
        def __init__(self, settings: Any, folder: Path) -> None:
            super().__init__(settings, folder)
            with torch.device("meta"):
                self.model: DiT = DiT(config(options.width))

        def initial_state(self) -> dict[str, torch.Tensor]:
            return initial(options.width)

        def batch(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, torch.Tensor]:
            return batch(step, options.batch)

        def loss(self, batch: Any, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
            if self.counted == warm:
                marks.append(Clock.now())
                spent.total = 0.0
            self.counted += 1
            spent.start()
            rows = len(batch["latents"])
            cond = Condition(
                text=[row[:VALID] for row in batch["text"]], pooled=batch["pooled"], frames=FRAMES, size=(SIDE, SIDE),
                patch=(2, 2), guidance=embedded_guidance(6.0).expand(rows), condition_channels=0,
            )  # fmt: skip
            noisy = interpolate(batch["latents"], batch["noise"], batch["time"])
            found = Denoiser(self.model, cond)(noisy, batch["time"])
            loss = (found - velocity(batch["latents"], batch["noise"])).square().mean()
            spent.stop()
            return loss, {}

        counted = 0

        def export(self, folder: Path) -> None:
            marks.append(Clock.now())

    backward, update = torch.Tensor.backward, MuonAdamW.step

    def timed_backward(tensor: torch.Tensor, *more: Any, **named: Any) -> None:
        spent.start()
        backward(tensor, *more, **named)
        spent.stop()

    def timed_update(optimizer: MuonAdamW, closure: Any = None) -> Any:
        loss = closure() if closure else None
        spent.start()
        update(optimizer)
        spent.stop()
        return loss

    torch.Tensor.backward = timed_backward  # type: ignore[method-assign, assignment]
    MuonAdamW.step = timed_update  # type: ignore[method-assign, assignment]
    settings = recipe.parse(
        {
            "objective": "steps", "steps": options.steps + warm, "batch": options.batch, "ema": options.ema,
            "precision": options.precision, "save_every": 10**6, "save_minutes": 1e6,
            "optim": {"name": "adamw", "lr": 1e-4, "warmup": 0, "max_grad_norm": 1.0},
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        objective = Steps(settings, Path(folder))
        from hy_train import fit

        last = fit.Saver.save
        peak: list[float] = []

        def at_end(saver: Any, trainer: Any) -> None:
            marks.append(Clock.now())
            peak.append(memory(before))  # without the writing of the last checkpoint
            last(saver, trainer)

        fit.Saver.save = at_end  # type: ignore[method-assign, assignment]
        run(settings, objective, Path(folder), quiet=True)
    seconds = marks[1] - marks[0]
    return {
        "samples": options.batch * options.steps / seconds,
        "peak": peak[0],
        "outside": 1 - spent.total / seconds,
    }


def run_theirs(options: argparse.Namespace) -> dict[str, float]:
    """Steps of a plain LightningModule with diffusers' transformer and torch's AdamW."""
    import lightning.pytorch as pl
    from diffusers import HunyuanVideoTransformer3DModel
    from hy_core.weights.keys import DIFFUSERS
    from torch.utils.data import DataLoader, Dataset

    shape, warm = config(options.width), 2
    marks: list[float] = []

    class Clips(Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return options.steps + warm

        def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
            return batch(step, options.batch)

    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            with torch.device("meta"):
                self.model = HunyuanVideoTransformer3DModel(
                    num_attention_heads=shape.heads,
                    attention_head_dim=shape.head_dim,
                    num_layers=shape.depth_double,
                    num_single_layers=shape.depth_single,
                    text_embed_dim=shape.text_dim,
                    pooled_projection_dim=shape.pooled_dim,
                )
            state = dict(DIFFUSERS.export(initial(options.width), options.width))
            self.model.load_state_dict(state, assign=True)
            self.model.requires_grad_(True)

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            if index == warm:
                marks.append(Clock.now())
            latents, noise = batch["latents"], batch["noise"]
            time = batch["time"][:, None, None, None, None]
            mask = (torch.arange(TEXT, device=latents.device) < VALID).expand(len(latents), -1)
            found = self.model(
                (1 - time) * latents + time * noise,
                batch["time"] * 1000,
                batch["text"],
                mask,
                batch["pooled"],
                torch.full((len(latents),), 6000.0, device=latents.device),
                return_dict=False,
            )[0]
            loss = (found - (noise - latents)).square().mean()
            self.log("loss", loss)
            return loss

        def on_train_end(self) -> None:
            marks.append(Clock.now())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 1e-4)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="auto", devices=1, max_epochs=1, precision=options.precision, gradient_clip_val=1.0,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(Plain(), DataLoader(Clips(), batch_size=None))
    return {"samples": options.batch * options.steps / (marks[1] - marks[0]), "peak": memory(before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--ema", type=float, default=0.0)
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.side:
        found = run_ours(options) if options.side == "ours" else run_theirs(options)
        print("RESULT " + json.dumps(found))
        return
    rounds: dict[str, list[dict[str, float]]] = {"theirs": [], "ours": []}
    for _ in range(options.rounds):
        for side, results in rounds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            line = next((one for one in done.stdout.splitlines() if one.startswith("RESULT ")), None)
            if line is None:
                raise SystemExit(done.stderr[-2000:])
            results.append(json.loads(line.removeprefix("RESULT ")))

    def middle(side: str, name: str) -> float:
        return statistics.median(one[name] for one in rounds[side])

    print("| | diffusers and Lightning | hy train | ratio |")
    print("| --- | --- | --- | --- |")
    for name, label, unit in (("samples", "samples/s", 1.0), ("peak", "peak memory, MB", 1e6)):
        theirs, ours = (middle(side, name) / unit for side in ("theirs", "ours"))
        print(f"| {label} | {theirs:.3g} | {ours:.3g} | {ours / theirs:.2f} |")
    print(f"| outside of forward, backward, optimiser | | {100 * middle('ours', 'outside'):.1f}% | |")


if __name__ == "__main__":
    main()
