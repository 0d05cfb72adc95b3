"""Data set configurations of musubi-tuner and diffusion-pipe.

Their frame settings (target_frames, frame_extraction, frame_buckets and their like) say how a trainer cuts clips. They
have no effect here: records are whole files, sets and buckets choose frames. A note names what was not taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord
from hy_core.errors import UsageError
from hy_core.media.names import PICTURES
from hy_core.tables import read_toml

from hy_data.formats.folder import MEDIA, VIDEOS, read_folder
from hy_data.formats.lists import read_list

_MUSUBI_FRAMES = (
    "target_frames",
    "frame_extraction",
    "frame_stride",
    "frame_sample",
    "max_frames",
    "source_fps",
)
_PIPE_FRAMES = ("frame_buckets", "size_buckets", "resolutions", "ar_buckets")


def read_toml_dataset(path: Path) -> tuple[list[ClipRecord], str, list[str]]:
    """Return the records, the layout's name and notes of a data set in TOML; `UsageError` for another TOML file."""
    table = read_toml(path)
    if isinstance(table.get("datasets"), list):
        return _musubi(table, path)
    if isinstance(table.get("directory"), list):
        return _diffusion_pipe(table, path)
    raise UsageError(
        f"{path} is no data set: it has neither [[datasets]] (musubi-tuner) nor [[directory]] (diffusion-pipe)"
    )


def _musubi(table: Mapping[str, Any], path: Path) -> tuple[list[ClipRecord], str, list[str]]:
    records: list[ClipRecord] = []
    notes = []
    general = table.get("general", {})
    for number, own in enumerate(table["datasets"], 1):
        where = f"{path}, datasets {number}"
        if not isinstance(own, Mapping):
            raise UsageError(f"{where} is not a table")
        one = {**(general if isinstance(general, Mapping) else {}), **own}
        caption = _text(one.get("caption_extension", ".txt"), f"{where}: caption_extension")
        for key, suffixes in (("video_directory", VIDEOS), ("image_directory", PICTURES)):
            if key in one:
                folder = _folder(one[key], path, f"{where}: {key}")
                records += read_folder(folder, deep=False, suffixes=suffixes, caption=caption)
        for key in ("video_jsonl_file", "image_jsonl_file"):
            if key in one:
                records += read_list(_there(one[key], path, f"{where}: {key}"))
        if not one.keys() & {"video_directory", "image_directory", "video_jsonl_file", "image_jsonl_file"}:
            raise UsageError(f"{where} names no clips", "such as video_directory or video_jsonl_file")
        notes += _frames(one, _MUSUBI_FRAMES, f"datasets {number}")
    return records, "musubi-tuner", notes


def _diffusion_pipe(table: Mapping[str, Any], path: Path) -> tuple[list[ClipRecord], str, list[str]]:
    records: list[ClipRecord] = []
    notes = _frames(table, _PIPE_FRAMES, "the file")
    for number, one in enumerate(table["directory"], 1):
        where = f"{path}, directory {number}"
        if not isinstance(one, Mapping) or "path" not in one:
            raise UsageError(f"{where} has no path")
        records += read_folder(_folder(one["path"], path, f"{where}: path"), deep=False, suffixes=MEDIA)
        notes += _frames(one, _PIPE_FRAMES, f"directory {number}")
    return records, "diffusion-pipe", notes


def _frames(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> list[str]:
    there = [f"{key} = {table[key]}" for key in keys if key in table]
    return [f"{where}: {', '.join(there)} has no effect here; sets choose frames"] if there else []


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.startswith(".") or "/" in value:
        raise UsageError(f"{where} = {value!r} is not a suffix", 'such as ".txt"')
    return value


def _folder(value: Any, path: Path, where: str) -> Path:
    folder = _there(value, path, where)
    if not folder.is_dir():
        raise UsageError(f"{where}: {folder} is not a folder")
    return folder


def _there(value: Any, path: Path, where: str) -> Path:
    """A path that is looked up in the current folder and then beside the configuration."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} = {value!r} is not a path")
    for place in (Path(value), path.parent / value):
        if place.exists():
            return place.absolute()
    raise UsageError(f"{where}: there is no {value}")
