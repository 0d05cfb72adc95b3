"""`hy eval world`: does a model show what the prompt says? Judged from pixels."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from hy_core.errors import UsageError

from hy_data.world.captions import Caption, caption
from hy_data.world.judge import Verdict, judge
from hy_data.world.render import render
from hy_data.world.scene import FPS, FRAMES, Scene, sample_scene
from hy_data.world.score import Line, score

if TYPE_CHECKING:
    from hy_core.models import Model
    from hy_core.vae import VAE

# What is asked for: (scenes of this split, captions of this wording, captions that leave nothing out).
GROUPS: dict[str, tuple[str, str, bool]] = {
    "combinations": ("heldout", "train", True),
    "wordings": ("train", "heldout", False),
    "unseen": ("train", "unseen", False),
    "train": ("train", "train", False),
}
TITLES = {
    "combinations": "held-out combinations",
    "wordings": "held-out wordings",
    "unseen": "verbs never seen",
    "train": "training prompts",
    "codec": "codec",
}

Advance = Callable[[int], None]


@dataclass
class Report:
    """The scores of one group of prompts."""

    group: str
    lines: list[Line]
    extra: dict[str, float] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    clips: list[np.ndarray] = field(default_factory=list)  # uint8 [T, H, W, 3] each

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "group": self.group,
            "count": len(self.clips),
            **self.extra,
            "attributes": {
                line.attribute: {
                    "right": line.made.right,
                    "total": line.made.total,
                    "accuracy": line.made.rate,
                    "interval": line.made.interval(),
                    "base": None if math.isnan(line.base) else line.base,
                    "real": line.real.rate,
                }
                for line in self.lines
            },
        }


def draw(
    group: str, count: int, seed: int, frames: int, height: int, width: int, objects: int
) -> tuple[list[Scene], list[Caption]]:
    """Draw the scenes of a group and their captions; the same for one seed."""
    split, wording, full = GROUPS[group]
    rng = np.random.default_rng((seed, list(GROUPS).index(group)))
    scenes = [sample_scene(rng, split, frames, height, width, objects) for _ in range(count)]
    return scenes, [caption(rng, scene, frames, wording, full) for scene in scenes]


def evaluate(
    make: Callable[[list[str]], Iterator[np.ndarray]],
    group: str = "combinations",
    count: int = 200,
    seed: int = 0,
    frames: int = FRAMES,
    height: int = 64,
    width: int = 64,
    objects: int = 1,
    advance: Advance = lambda steps: None,
) -> Report:
    """Judge the clips that `make` yields for the prompts of a group, uint8 [T, H, W, 3], in their order."""
    scenes, stated = draw(group, count, seed, frames, height, width, objects)
    prompts = [words.text for words in stated]
    clips: list[np.ndarray] = []
    for clip in make(prompts):
        clips.append(np.asarray(clip))
        advance(1)
    seen = [judge(clip, objects) for clip in clips]
    return Report(
        group, score(seen, _real(scenes, frames, height, width), scenes, stated), {}, prompts, clips
    )


def evaluate_codec(
    vae: VAE,
    count: int = 200,
    seed: int = 0,
    frames: int = FRAMES,
    height: int = 64,
    width: int = 64,
    objects: int = 1,
    rows: int = 8,
    advance: Advance = lambda steps: None,
) -> Report:
    """Judge what a VAE keeps of real clips.

    `extra["psnr"]` is the mean over clips in dB, the line "all" the share of clips of which all is kept.
    Scenes of all combinations; captions that state everything.
    """
    import torch

    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, "all", frames, height, width, objects) for _ in range(count)]
    stated = [caption(rng, scene, frames, full=True) for scene in scenes]
    where = next(vae.parameters())
    clips, psnr = [], []
    for start in range(0, count, rows):
        given = np.stack([render(scene, frames, height, width) for scene in scenes[start : start + rows]])
        with torch.inference_mode():
            pixels = torch.from_numpy(given).permute(0, 4, 1, 2, 3).to(where.device, where.dtype) / 127.5 - 1
            back = vae.decode(vae.encode(pixels).mode()).float().cpu()
        back = ((back.permute(0, 2, 3, 4, 1).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        error = ((back.astype(np.float32) - given) ** 2).mean((1, 2, 3, 4))
        psnr += [float(value) for value in 10 * np.log10(255.0**2 / np.maximum(error, 1e-3))]
        clips += list(back)
        advance(len(given))
    seen = [judge(clip, objects) for clip in clips]
    lines = score(seen, _real(scenes, frames, height, width), scenes, stated)
    return Report("codec", lines, {"psnr": float(np.mean(psnr))}, [words.text for words in stated], clips)


def _real(scenes: Sequence[Scene], frames: int, height: int, width: int) -> list[Verdict]:
    return [judge(render(scene, frames, height, width), len(scene.things)) for scene in scenes]


def generator(
    model: Model, frames: int, height: int, width: int, steps: int, seed: int, cfg: float | None, rows: int
) -> Callable[[list[str]], Iterator[np.ndarray]]:
    """Return a function that makes clips with `hy_core.pipeline`; the seeds are seed, seed + 1, ..."""
    from hy_core.pipeline import stream
    from hy_core.request import Request

    default = model.defaults

    def make(prompts: list[str]) -> Iterator[np.ndarray]:
        requests = [
            Request(
                prompt,
                negative=default.negative,
                width=width,
                height=height,
                frames=frames,
                fps=FPS,
                steps=steps,
                seed=seed + index,
                guidance=default.guidance,
                cfg=default.cfg if cfg is None else cfg,
                shift=default.shift,
                model=model.name,
            )
            for index, prompt in enumerate(prompts)
        ]
        for result in stream(requests, model=model, rows=rows):
            yield np.asarray(result.frames)

    return make


class Size(click.ParamType):
    """WIDTHxHEIGHT in multiples of 16."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (width, height)."""
        if isinstance(value, tuple):
            return value
        width, _, height = value.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, such as 64x64", param, ctx)
        if int(width) % 16 or int(height) % 16 or not int(width) or not int(height):
            self.fail(f"{value}: width and height must be multiples of 16", param, ctx)
        return int(width), int(height)


@click.command("world")
@click.option("--model", default="pocket", show_default=True, help="Name or folder of the model.")
@click.option("--codec", is_flag=True, help="Judge the model's VAE: decoded encodings of real clips.")
@click.option(
    "--vae",
    type=click.Path(exists=True, path_type=Path),
    help="For --codec: VAE weights beside their config.json.",
)
@click.option(
    "--group", "groups", multiple=True, type=click.Choice(list(GROUPS)), help="Prompts; repeatable."
)
@click.option(
    "--count", default=200, show_default=True, type=click.IntRange(2), help="Prompts of each group."
)
@click.option(
    "--objects", default=1, show_default=True, type=click.IntRange(1, 2), help="Things in each scene."
)
@click.option("--frames", default=FRAMES, show_default=True, type=click.IntRange(1), help="1 for pictures.")
@click.option("--size", default="64x64", show_default=True, type=Size(), help="Size of the clips.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Sampling steps.")
@click.option("--cfg", type=float, help="Guidance scale; the model's own if not given.")
@click.option("--seed", default=0, show_default=True, help="Of the prompts and of the noise.")
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Clips at once.")
@click.option("--device", default="auto", show_default=True, help="Where to run.")
@click.option("--dtype", default="auto", show_default=True, help="Number format.")
@click.option("--contact-sheet", type=click.Path(path_type=Path), help="PNG of the first clips.")
@click.option("--gif", type=click.Path(path_type=Path), help="GIF of the first clips.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str,
    codec: bool,
    vae: Path | None,
    groups: tuple[str, ...],
    count: int,
    objects: int,
    frames: int,
    size: tuple[int, int],
    steps: int,
    cfg: float | None,
    seed: int,
    batch_size: int,
    device: str,
    dtype: str,
    contact_sheet: Path | None,
    gif: Path | None,
    as_json: bool,
) -> None:
    """Score a model on prompts about the procedural world.

    Clips are judged from their pixels. For each attribute: how often it is as the prompt says, with a 95%
    interval; how often it would be by chance (the same clips against other prompts); and how often on real
    renders of the same scenes, which is the judge's own accuracy.
    """
    if (frames - 1) % 4:
        raise UsageError(f"--frames {frames}: frames must be 4k+1", f"try {frames // 4 * 4 + 1}")
    if 1 < frames < 9:
        raise UsageError(f"--frames {frames}: too few to tell a motion", "1 for pictures, or 9 and more")
    if codec and groups:
        raise UsageError("--codec takes no prompts", "leave --group out")
    if vae and not codec:
        raise UsageError("--vae goes with --codec", "to score clips made from prompts, give --model")
    if contact_sheet or gif:
        from hy_core.media import check_target

        for path, length in ((contact_sheet, 1), (gif, frames)):
            if path:
                check_target(path, length)
    width, height = size
    scene = {"frames": frames, "height": height, "width": width, "objects": objects}
    chosen = groups or ("combinations", "wordings")
    started = time.perf_counter()
    with _progress(count if codec else count * len(chosen)) as (say, advance):
        if codec:
            say("loading the VAE")
            network = _load_vae(model, vae, device, dtype)
            say("encoding and decoding")
            reports = [evaluate_codec(network, count, seed, rows=batch_size, advance=advance, **scene)]
        else:
            from hy_core import models

            say(f"loading {model}")
            loaded = models.load(model, device, dtype)
            make = generator(loaded, frames, height, width, steps, seed, cfg, batch_size)
            say("making clips")
            reports = [evaluate(make, group, count, seed, advance=advance, **scene) for group in chosen]
    if contact_sheet or gif:
        from hy_core import media

        from hy_data.world import sheet

        if contact_sheet:
            media.write(contact_sheet, sheet.contact_sheet(reports), FPS)
        if gif:
            media.write(gif, sheet.mosaic(reports), FPS)
    summary = {
        "model": str(vae or model),
        **({} if codec else {"steps": steps, "cfg": cfg}),
        **scene,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "groups": [report.to_json() for report in reports],
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    for report in reports:
        _print(report)


def _load_vae(model: str, path: Path | None, device: str, dtype: str) -> VAE:
    if path is None:
        from hy_core import models

        return models.load(model, device, dtype).vae
    from hy_core.models import precision
    from hy_core.weights import load_vae

    kinds = precision("pocket", device, dtype)
    return load_vae(path, kinds.device, kinds.vae).eval()


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Advance]]:
    """Show a bar on a terminal; elsewhere only what is being done. All on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: click.echo(text, err=True), lambda steps: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda text: bar.update(task, description=text), lambda steps: bar.advance(task, steps)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{TITLES[report.group]}: {len(report.clips)} clips"
    if "psnr" in report.extra:
        title += f", {report.extra['psnr']:.2f} dB"
    table = Table(title=title, title_justify="left")
    for heading in ("attribute", "right", "accuracy", "95% interval", "by chance", "real renders"):
        table.add_column(heading, justify="left" if heading == "attribute" else "right")
    for line in report.lines:
        low, high = line.made.interval()
        table.add_row(
            line.attribute,
            f"{line.made.right}/{line.made.total}",
            f"{line.made.rate:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{line.base:.1%}",
            f"{line.real.rate:.1%}",
        )
    Console().print(table)
