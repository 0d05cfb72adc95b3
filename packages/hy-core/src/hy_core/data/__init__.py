"""Contracts of training data: clip records and their manifests, stages that fill them, sources of clips.

    ClipRecord       one clip of a file, with what stages found out about it
    read_manifest, write_manifest   records as a JSONL file
    Stage            a step of a data pipeline, record to records
    DataSource       a finite, indexed collection of clips; `open_source` makes one by its registered name
    is_heldout       which files are held out for evaluation

Nothing here imports torch.
"""

from __future__ import annotations

from hy_core.data.manifest import read_manifest, write_manifest
from hy_core.data.record import JSON, ClipRecord
from hy_core.data.source import (
    Clip,
    ClipShape,
    DataSource,
    SourceSpec,
    clip_key,
    fingerprint,
    left_out,
    open_source,
)
from hy_core.data.split import Split, check_split, is_heldout, select_split
from hy_core.data.stage import Resources, Score, Stage, run_stages

__all__ = [
    "JSON",
    "Clip",
    "ClipRecord",
    "ClipShape",
    "DataSource",
    "Resources",
    "Score",
    "SourceSpec",
    "Split",
    "Stage",
    "check_split",
    "clip_key",
    "fingerprint",
    "is_heldout",
    "left_out",
    "open_source",
    "read_manifest",
    "run_stages",
    "select_split",
    "write_manifest",
]
