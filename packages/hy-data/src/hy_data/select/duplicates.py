"""Find near-duplicates among clips by what stages stored of them; no video is read.

Candidates are clips with similar vectors (`neighbours`). They are verified by the pictures of their signatures
(`matching`). A picture file is no duplicate of a clip. Duplicates of duplicates form one group, of which the best clip
is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hy_core.options import option

from hy_data.select.match_cache import matches
from hy_data.select.matching import Match
from hy_data.select.neighbours import Index, matrix, near_pairs
from hy_data.table import score_of

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("duplicate_of", pa.string()),
        ("how", pa.string()),
        ("similarity", pa.float32()),
    ]
)


@dataclass(frozen=True)
class DuplicateOptions:
    """The table `[duplicates]` of a recipe."""

    method: Literal["frames", "vector", "off"] = option(
        "frames",
        help="frames: verify similar vectors by pictures; vector: trust the vector; off: keep duplicates",
    )
    vector: str = option("embedding", help="column of the vectors")
    candidate: float = option(0.78, minimum=-1, maximum=1, help="least cosine of a pair that is verified")
    neighbours: int = option(24, minimum=1, maximum=1024, help="most candidates of a clip, the nearest ones")
    index: Index = option("auto", help="exact, faiss, or auto: faiss from 20,000 clips on if it is installed")
    certain: float = option(0.95, minimum=-1, maximum=1, help="least cosine of duplicates with method vector")
    inliers: int = option(
        6, minimum=4, maximum=400, help="least local features that explain a part of a picture"
    )
    agreement: float = option(
        0.75, minimum=0, maximum=1, help="least share of the common picture that agrees"
    )
    texture: float = option(
        0.05, minimum=0, maximum=1, help="least textured share: a blank picture proves nothing"
    )
    overlap: float = option(0.4, minimum=0, maximum=1, help="least common part of the smaller picture")
    same_place: bool = option(
        True, help="whether clips of a still camera count that differ in what moves before it"
    )
    quality: str = option(
        "", help='column that decides between copies of one size, such as a quality score; "" for none'
    )


@dataclass(frozen=True)
class _Link:
    """Two rows that are duplicates."""

    first: int
    second: int
    how: str
    similarity: float


def find_duplicates(table: pa.Table, options: DuplicateOptions, folder: Path | None = None) -> pa.Table:
    """Return a row for each clip that is a duplicate of a kept one: id, duplicate_of, how, similarity; sorted by id.

    `table` is the table of scores; its rows with status ok and a vector are compared. `how` is "frames" or "mirrored"
    (verified; `similarity` is the share of the picture that agrees) or "vector" (`similarity` is the cosine): of the
    clip and the kept one if they were compared, else of its closest relative in the group. Signatures are read from the
    column `signature`, else from the file scores.parquet in `folder`; what was compared once is kept in cache/select of
    that folder.
    `UsageError` if vectors or signatures are missing.
    """
    if options.method == "off":
        return SCHEMA.empty_table()
    rows, vectors = matrix(table, options.vector)
    least = options.certain if options.method == "vector" else options.candidate
    pairs, cosines = near_pairs(vectors, least, options.neighbours, options.index)
    pairs = rows[pairs]
    alike = _same_kind(table, pairs)
    pairs, cosines = pairs[alike], cosines[alike]
    if options.method == "vector":
        links = [
            _Link(first, second, "vector", float(one))
            for (first, second), one in zip(pairs.tolist(), cosines, strict=True)
        ]
    else:
        links = list(_links(pairs, matches(table, pairs, folder), options))
    ids = table["id"].to_pylist()
    found = sorted(_dropped(links, _preference(table, ids, options.quality), ids))
    columns: list[Sequence[object]] = list(zip(*found, strict=True)) if found else [[], [], [], []]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA
    )


def is_duplicate(match: Match, options: DuplicateOptions) -> bool:
    """Whether two clips that match so are duplicates."""
    return (
        (match.whole or match.inliers >= options.inliers)
        and match.texture >= options.texture
        and match.agreement >= options.agreement
        and match.overlap >= options.overlap
        and (options.same_place or match.motion >= options.agreement)
    )


def _links(pairs: np.ndarray, found: Sequence[Match], options: DuplicateOptions) -> Iterator[_Link]:
    for (first, second), match in zip(pairs.tolist(), found, strict=True):
        if is_duplicate(match, options):
            yield _Link(first, second, "mirrored" if match.mirrored else "frames", match.agreement)


def _same_kind(table: pa.Table, pairs: np.ndarray) -> np.ndarray:
    """Return which pairs of rows [N, 2] are both clips or both picture files: bool [N]."""
    if "frames" not in table.column_names:
        return np.ones(len(pairs), bool)
    is_picture = np.asarray(pc.fill_null(pc.equal(table["frames"], 1), False))
    same: np.ndarray = is_picture[pairs[:, 0]] == is_picture[pairs[:, 1]]
    return same


def _preference(table: pa.Table, ids: Sequence[str], quality: str) -> np.ndarray:
    """The place of each row when sorted from the best: more pixels, better quality, longer, then by id."""

    def column(name: str) -> np.ndarray:
        if not name or name not in table.column_names:
            return np.zeros(len(table))
        return np.nan_to_num(np.asarray(table[name].to_numpy(), np.float64), nan=-1e9)

    area = column("width") * column("height")
    length = column("stop") - column("start") if "stop" in table.column_names else column("frames")
    worth = column(quality)
    if quality in table.column_names and (score := score_of(table.schema.field(quality))):
        worth = -worth if score.better == "low" else worth
    order = np.lexsort((np.argsort(np.argsort(ids)), -length, -worth, -area))
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    return place


def _dropped(
    links: Sequence[_Link], order: np.ndarray, ids: Sequence[str]
) -> Iterator[tuple[str, str, str, float]]:
    """Yield (id, duplicate_of, how, similarity) of every row but the best of each connected group."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while (above := parent.get(row, row)) != row:
            parent[row] = parent.get(above, above)
            row = above
        return row

    closest: dict[int, tuple[tuple[bool, float], _Link]] = {}
    for link in links:
        first, second = sorted((root(link.first), root(link.second)), key=lambda row: order[row])
        if first != second:
            parent[second] = first  # the best of a group is its root
    for link in links:
        best = root(link.first)
        for row in (link.first, link.second):
            # What was compared with the kept clip itself says most.
            rank = (best in (link.first, link.second), link.similarity)
            if row != best and (row not in closest or rank > closest[row][0]):
                closest[row] = rank, link
    for row, (_, link) in closest.items():
        yield ids[row], ids[root(row)], link.how, link.similarity
