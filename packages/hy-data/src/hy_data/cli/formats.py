"""`hy data import` and `hy data export`: data sets of other tools."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Manifest to write, such as clips.jsonl; clips of tar shards go into the folder clips beside it.",
)
def read(source: Path, out: Path) -> None:
    """Read a data set of another tool as a manifest for hy data run.

    SOURCE is a folder (captions in .txt files, metadata.jsonl or .csv, the two text files of finetrainers, WebDataset
    shards), a .toml file of musubi-tuner or diffusion-pipe, or a .jsonl, .json, .csv or .tar file.

    \b
    $ hy data import dataset.toml -o clips.jsonl
    $ hy data run clips.jsonl -o sets/
    """
    from hy_core.data import write_manifest

    from hy_data.formats.read import read_dataset

    found = read_dataset(source, out.absolute().parent / out.stem)
    write_manifest(out, found.records)
    click.echo(f"{out}: {len(found.records)} clips, read as {found.layout}")
    for note in found.notes:
        click.echo(note, err=True)


@click.command("export")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--set", "name", required=True, metavar="NAME", help="The set.")
@click.option(
    "--to",
    type=click.Choice(["webdataset", "folder", "jsonl"]),
    default="webdataset",
    show_default=True,
    help="tar shards; clips with captions; or a list that names parts of the raw files.",
)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to."
)
@click.option(
    "--shard-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=256,
    show_default=True,
    help="A shard is closed when its clips have so many MB.",
)
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    help="Frames a second [those of the set, else of the file].",
)
def write(folder: Path, name: str, to: str, out: Path, shard_mb: float, fps: float | None) -> None:
    """Write a set of FOLDER as files that other tools read; clips are cut and encoded again.

    \b
    $ hy data export sets/ --set 256p --to webdataset -o shards/
    """
    from hy_core.errors import HyError

    from hy_data.formats.export import export_set

    done = export_set(folder, name, to, out, shard_bytes=max(int(shard_mb * 2**20), 1), fps=fps)  # type: ignore[arg-type]
    click.echo(f"{out}: {done.clips} clips in {len(done.files)} files")
    if done.failed:
        raise HyError(
            f"{len(done.failed)} clips could not be cut", f"{out / f'{name}-failed.jsonl'} says why"
        )
