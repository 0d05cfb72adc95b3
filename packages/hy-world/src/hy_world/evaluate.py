"""`hy eval world`: how well does a model do a task? Judged from pixels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from hy_core.errors import UsageError
from hy_core.rewrite.opening import open_rewriter

from hy_world.rewriting.lexicon import LANGUAGES
from hy_world.scene import FPS, FRAMES
from hy_world.tasks import TASKS, Advance, EvalRequest, conditioner, plugin_options
from hy_world.text_to_video import GROUPS

if TYPE_CHECKING:
    from hy_core.models import Model
    from hy_core.vae import VAE


class Size(click.ParamType[tuple[int, int]]):
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
@click.option(
    "--task",
    default="t2v",
    show_default=True,
    type=click.Choice(list(TASKS)),
    help="What to measure. " + " ".join(f"{name}: {task.about}." for name, task in TASKS.items()),
)
@click.option("-p", "--plugin", metavar="NAME", help="Plugin to measure, for tasks that need one.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of that plugin, such as model=DIR; repeatable.",
)
@click.option(
    "--generated", is_flag=True, help="Use generated clips, for tasks that otherwise use real renders."
)
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
    "--language",
    default="en",
    show_default=True,
    type=click.Choice(LANGUAGES),
    help="Language of the prompts of --group free.",
)
@click.option("--rewrite", "rewriting", is_flag=True, help="Rewrite the prompts by the model's own rewriter.")
@click.option(
    "--count", default=200, show_default=True, type=click.IntRange(2), help="Prompts of each group."
)
@click.option(
    "--objects", default=1, show_default=True, type=click.IntRange(1, 2), help="Objects in each scene."
)
@click.option("--frames", default=FRAMES, show_default=True, type=click.IntRange(1), help="1 for pictures.")
@click.option("--size", default="64x64", show_default=True, type=Size(), help="Size of the clips.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Sampling steps.")
@click.option("--cfg", type=float, help="Guidance scale; the model's own if not given.")
@click.option("--seed", default=0, show_default=True, help="Seed of prompts and noise.")
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Clips per batch.")
@click.option("--device", default="auto", show_default=True, help="Where to run.")
@click.option("--dtype", default="auto", show_default=True, help="Number format.")
@click.option("--contact-sheet", type=click.Path(path_type=Path), help="PNG of the first clips.")
@click.option("--gif", type=click.Path(path_type=Path), help="GIF of the first clips.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    task: str,
    plugin: str | None,
    options: tuple[str, ...],
    generated: bool,
    model: str,
    codec: bool,
    vae: Path | None,
    groups: tuple[str, ...],
    language: str,
    rewriting: bool,
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
    """Score a model on the procedural world: on prompts, or on the task that --task names.

    Clips are judged from their pixels. For each attribute: how often it is as the prompt says, with a 95%
    interval; how often it would be by chance (the same clips against other prompts); and how often on real
    renders of the same scenes, which is the judge's own accuracy.
    """
    if (frames - 1) % 4:
        raise UsageError(f"--frames {frames}: frames must be 4k+1", f"try {frames // 4 * 4 + 1}")
    if 1 < frames < 9:
        raise UsageError(f"--frames {frames}: too few to tell a motion", "1 for pictures, or 9 and more")
    work = TASKS[task]
    if frames < work.frames:
        raise UsageError(f"--task {task} --frames {frames}: at least {work.frames}")
    if plugin and not work.plugin:
        raise UsageError(f"--plugin: the task {task} uses none", "leave it out, or say which --task")
    if options and not work.plugin:
        raise UsageError(f"--option: the task {task} uses no plugin", "leave it out, or say which --task")
    if generated and not work.renders:
        raise UsageError(f"--generated: the task {task} takes no others", "leave it out")
    if codec and groups:
        raise UsageError("--codec takes no prompts", "leave --group out")
    if codec and work.plugin:
        raise UsageError("--codec and --task are two things to measure", "leave one of them out")
    if language != "en" and "free" not in groups:
        raise UsageError(f"--language {language}: goes with --group free", "the other groups are in English")
    if rewriting and (task != "t2v" or codec):
        raise UsageError("--rewrite goes with prompts", "leave --task and --codec out")
    if vae and not codec:
        raise UsageError("--vae goes with --codec", "to score clips made from prompts, give --model")
    if contact_sheet or gif:
        from hy_core.media import check_target

        for path, length in ((contact_sheet, 1), (gif, frames)):
            if path:
                check_target(path, length)
    width, height = size
    scene = {"frames": frames, "height": height, "width": width, "objects": objects}
    kind = conditioner(plugin or work.plugin) if work.plugin else None
    said = plugin_options(kind, options) if kind else {}
    renders = work.renders and not generated
    started = time.perf_counter()
    session = None
    with _progress() as (say, expect, advance):
        if codec:
            from hy_world.codec import evaluate_codec

            say("loading the VAE")
            network = _load_vae(model, vae, device, dtype)
            say("encoding and decoding")
            expect(count)
            reports = [evaluate_codec(network, count, seed, rows=batch_size, advance=advance, **scene)]
        else:
            from hy_core.session import Session

            if not renders:
                say(f"loading {model}")
                session = Session.open(model, device, dtype)
            chosen = groups or work.groups
            asked = EvalRequest(
                session,
                chosen,
                count,
                **scene,
                steps=steps,
                cfg=cfg,
                seed=seed,
                rows=batch_size,
                conditioner=kind,
                options=said,
                generated=generated,
                device=device,
                dtype=dtype,
                language=language,
                rewriter=open_rewriter("auto", model) if rewriting else None,
                advance=advance,
            )
            say("making clips")
            expect(count * len(chosen) * work.clips)
            reports = list(work.run(asked))
    if contact_sheet or gif:
        from hy_core import media

        from hy_world import sheet

        if contact_sheet:
            media.write(contact_sheet, sheet.contact_sheet(reports), FPS)
        if gif:
            media.write(gif, sheet.mosaic(reports), FPS)
    summary = {
        "model": None if renders else str(vae or model),
        **({} if codec else {"task": task}),
        **(_sampling(session.model, steps, cfg) if session else {}),
        **({"plugin": plugin or work.plugin, "options": list(options)} if work.plugin else {}),
        **({"language": language, "rewritten": rewriting} if "free" in groups or rewriting else {}),
        **scene,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "groups": [report.to_json() for report in reports],
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    for report in reports:
        report.show()


def _sampling(model: Model, steps: int, cfg: float | None) -> dict[str, Any]:
    """How clips were sampled: what the command line says, and else what the model does."""
    own = model.defaults
    return {
        "steps": steps,
        "cfg": own.cfg if cfg is None else cfg,
        "sampler": own.sampler,
        "shift": own.shift,
    }


def _load_vae(model: str, path: Path | None, device: str, dtype: str) -> VAE:
    if path is None:
        from hy_core import models

        return models.load(model, device, dtype).vae
    from hy_core.models import precision
    from hy_core.weights import load_vae

    kinds = precision("pocket", device, dtype)
    return load_vae(path, kinds.device, kinds.vae).eval()


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[int], None], Advance]]:
    """Show a bar on a terminal; elsewhere only what is being done. All on stderr.

    Yields functions that say what is being done, how many clips are expected, and that so many more are done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: click.echo(text, err=True), lambda clips: None, lambda clips: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield (
            lambda text: bar.update(task, description=text),
            lambda clips: bar.update(task, total=clips),
            lambda clips: bar.advance(task, clips),
        )
