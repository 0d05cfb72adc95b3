"""Read a data set of any known layout as clip records::

    a folder      of clips and pictures, each with its caption in NAME.txt beside it, or in `captions.json`;
                  with videos.txt and prompts.txt, or metadata.csv, .jsonl or .json (finetrainers, Hugging Face);
                  with tar shards (WebDataset)
    NAME.toml     a data set of musubi-tuner ([[datasets]]) or diffusion-pipe ([[directory]])
    NAME.jsonl    one object a line; NAME.json a list of objects; NAME.csv a header and rows
    NAME.tar      one shard (WebDataset)

Only lists, captions and names are read here; clips are opened when a pipeline runs. Members of shards become files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hy_core.data import ClipRecord
from hy_core.errors import HyError, MissingError, UsageError

from hy_data.formats import lists, shards, tomls
from hy_data.formats.folder import read_folder


@dataclass(frozen=True)
class Imported:
    """Records of a data set; `layout` names what it was read as; `notes` are lines about what wasn't taken over."""

    records: Sequence[ClipRecord]
    layout: str
    notes: tuple[str, ...] = ()


def read_dataset(source: Path | str, unpacked: Path | str) -> Imported:
    """Return the records of a data set; members of tar shards are written to the folder `unpacked`.

    Paths of records are absolute. A listed file that isn't there is a note. `MissingError` if there is no source,
    `UsageError` for a layout that isn't known and for malformed lists, `HyError` for a data set without clips.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise MissingError(f"no such folder or file: {source}")
    found = _read(source, Path(unpacked).absolute())
    there = [record for record in found.records if record.path.is_file()]
    notes = list(found.notes)
    if missing := len(found.records) - len(there):
        first = next(record.path for record in found.records if not record.path.is_file())
        notes.append(f"{missing} listed files are not there, the first: {first}")
    if not there:
        raise HyError(f"{source} has no clips (read as {found.layout})", notes[0] if notes else None)
    if without := sum(not record.captions for record in there):
        notes.append(f"{without} of {len(there)} clips have no caption")
    return Imported(there, found.layout, tuple(notes))


def _read(source: Path, unpacked: Path) -> Imported:
    if source.is_dir():
        return _read_folder(source, unpacked)
    suffix = source.suffix.lower()
    if suffix == ".toml":
        records, layout, notes = tomls.read_toml_dataset(source)
        return Imported(records, layout, tuple(notes))
    if suffix in lists.SUFFIXES:
        return Imported(lists.read_list(source), f"a list ({suffix})")
    if suffix == ".tar":
        records, notes = shards.unpack([source], unpacked)
        return Imported(records, "WebDataset", tuple(notes))
    raise UsageError(f"{source}: a data set is a folder, a .toml, .jsonl, .json, .csv or .tar file")


def _read_folder(folder: Path, unpacked: Path) -> Imported:
    for name in ("metadata.jsonl", "metadata.json", "metadata.csv"):
        if (folder / name).is_file():
            return Imported(lists.read_list(folder / name), f"a folder with {name}")
    if pair := lists.find_pair(folder):
        return Imported(lists.read_pair(*pair), f"finetrainers ({pair[0].name} and {pair[1].name})")
    if tars := sorted(folder.glob("*.tar")):
        records, notes = shards.unpack(tars, unpacked)
        return Imported(records, f"WebDataset, {len(tars)} shards", tuple(notes))
    return Imported(read_folder(folder), "a folder of clips with captions in .txt files")
