"""`hy data cache`: latents and text features of a set."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("cache")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--set", "name", required=True, help="The set, by its name in the recipe.")
@click.option("--model", default="pocket", show_default=True, help="Name or folder of the model to train.")
@click.option(
    "--captions",
    type=click.IntRange(0, 1000),
    default=4,
    show_default=True,
    help="Captions a clip, drawn by dropout and permutation; 0 for no text features.",
)
@click.option(
    "--frames", type=click.IntRange(1), multiple=True, help="Frames of a bucket; repeat [those of the set]."
)
@click.option("--area", type=click.IntRange(256), help="Pixels a frame of the buckets [those of the set].")
@click.option(
    "--fps", type=click.FloatRange(0.1, 240), help="Frames a second [those of the set or the file]."
)
@click.option("--enlarge", type=click.FloatRange(1, 8), default=1.0, help="How far a side may be enlarged.")
@click.option(
    "--rows", type=click.IntRange(1, 1024), default=4, show_default=True, help="Clips encoded together."
)
@click.option(
    "--tiling", type=click.Choice(["off", "official", "diffusers"]), default="off", show_default=True
)
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True
)
@click.option("--device", default="auto", show_default=True, help="Where the model runs.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help="Number format of the model.",
)
@click.option("--verify", is_flag=True, help="Check every byte of the shards that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    folder: Path,
    name: str,
    model: str,
    captions: int,
    frames: tuple[int, ...],
    area: int | None,
    fps: float | None,
    enlarge: float,
    rows: int,
    tiling: str,
    dtype: str,
    device: str,
    precision: str,
    verify: bool,
    as_json: bool,
) -> None:
    """Encode the clips and captions of a set of FOLDER into FOLDER/cache.

    What is there already, of this or another set, isn't computed again; a stopped run continues.

    \b
    $ hy data cache sets/ --set 256p --model pocket --captions 4
    """
    from rich.console import Console
    from rich.progress import Progress

    from hy_data.cache.command import CacheRequest, fill

    request = CacheRequest(
        folder,
        name,
        model,
        captions,
        frames,
        area or 0,
        fps,
        enlarge,
        rows,
        tiling,
        dtype,
        device,
        precision,
        verify,
    )
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bars:
        report = fill(request, lambda what, total: bars.add_task(what, total=total), bars.advance)
    for line in report.notes:
        click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        click.echo(report.text())
