"""`hy eval audio`: how good is the sound of these clips?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from hy_core.errors import HyError, UsageError

from hy_audio.metrics.embedders import Embedder, embedder
from hy_audio.metrics.measures import FileMetrics, files, measure, summary
from hy_audio.sync import TOLERANCE

ABOUT = {
    "files": "files with sound",
    "seconds": "seconds of sound",
    "loudness": "loudness, LUFS",
    "loudness_spread": "deviation of the loudness, LU",
    "peak": "highest true peak, dBTP",
    "silence": "share of silent time",
    "silent_files": "silent files",
    "silent_tails": "files that end in silence",
    "onset_f1": "F1 of onsets and motion",
    "offset": "mean offset to the motion, seconds",
    "fd": "Frechet distance to the real ones",
    "kl": "KL divergence from the real ones",
    "is": "inception_score score",
    "clap": "cosine of sound and caption",
}


@click.command("audio")
@click.argument("made", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--real", type=click.Path(exists=True, path_type=Path), help="Real clips or sounds, for FD and KL."
)
@click.option(
    "--embedder", "names", multiple=True, default=("mel",), show_default=True,
    help="mel, clap:FOLDER, classifier:FOLDER or module:attribute; repeatable.",
)  # fmt: skip
@click.option(
    "--captions", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON of captions by the files' names without suffix, for the CLAP score.",
)  # fmt: skip
@click.option(
    "--tolerance", default=TOLERANCE, show_default=True, help="Seconds between an onset and its motion."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    made: Path,
    real: Path | None,
    names: tuple[str, ...],
    captions: Path | None,
    tolerance: float,
    as_json: bool,
) -> None:
    """Measure the sound of the clips or sound files in the folder MADE.

    Loudness, peaks and silence; how onsets agree with the motion in each clip; and, in every embedding, the
    Frechet distance and the KL divergence to real sounds (KL: of pairs with one name), the inception score, and
    with captions the CLAP score. "mel" needs no weights; its distance compares runs, not papers.
    """
    towers = {name: embedder(name) for name in dict.fromkeys(names)}
    described = read_captions(captions) if captions else {}
    ours = all_of(made, towers, tolerance, True)
    theirs = all_of(real, towers, tolerance, False) if real else []
    texts = {name: one.texts for name, one in towers.items() if hasattr(one, "texts")}
    found = summary(ours, theirs, described, texts)
    if as_json:
        click.echo(json.dumps({"made": str(made), "real": None if real is None else str(real), **found}))
        return
    show(found)


def all_of(folder: Path, towers: Mapping[str, Embedder], tolerance: float, timing: bool) -> list[FileMetrics]:
    """Measure every file of a folder; a file without sound or that can't be read is left out with a warning."""
    found = []
    for path in files(folder):
        try:
            found.append(measure(path, towers, tolerance, timing))
        except UsageError:
            raise
        except HyError as error:
            click.echo(f"left out: {error.message}", err=True)
    if not found:
        raise UsageError(f"nothing in {folder} has sound")
    return found


def read_captions(path: Path) -> dict[str, str]:
    """Captions by name from a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise UsageError(f"{path} is not an object of captions", '{"name": "rain on a tin roof"}')
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in found.items():
        if isinstance(value, dict):
            for score, number in value.items():
                table.add_row(f"{ABOUT[score]} ({name})", f"{number:.4g}")
        elif value is not None:
            table.add_row(ABOUT[name], f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
