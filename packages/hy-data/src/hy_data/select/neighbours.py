"""Nearest neighbours of vectors by cosine: exact in blocks, or by a FAISS index for millions."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hy_core.errors import MissingError, UsageError

Index = Literal["auto", "exact", "faiss"]
_BLOCK = 2048
_EXACT_FAISS = 100_000
"""FAISS compares up to this many vectors one by one, as `exact` does; more are first sorted into cells."""
_AUTO_FAISS = 20_000
_TRAINING = 64  # vectors to a cell
_PROBES = 16


def matrix(table: pa.Table, column: str, default_length: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a table that hold a vector, int64 [N], and these as unit vectors, float32 [N, D].

    Rows whose `status` isn't "ok" are left out. `UsageError` for no such column and for vectors of several lengths.
    """
    if column not in table.column_names:
        raise UsageError(f"the table of scores has no column {column}", "the stage embedding makes it")
    values = table[column].combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    wanted = pc.is_valid(values)
    if "status" in table.column_names:
        ok = pc.fill_null(pc.equal(table["status"].combine_chunks(), "ok"), False)
        wanted = pc.and_(wanted, ok)
    rows = np.flatnonzero(np.asarray(wanted))
    if not len(rows):
        return rows, np.zeros((0, default_length), np.float32)
    chosen = values if len(rows) == len(values) else values.take(pa.array(rows))
    lengths = np.unique(np.asarray(pc.list_value_length(chosen)))
    if len(lengths) > 1 or lengths[0] == 0:
        raise UsageError(
            f"the column {column} holds vectors of {lengths[0]} to {lengths[-1]} numbers",
            "run the stage embedding with one model for all clips",
        )
    vectors = np.asarray(chosen.flatten(), np.float32).reshape(len(rows), int(lengths[0]))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows, vectors / np.where(norms > 0, norms, 1)


def near_pairs(
    vectors: np.ndarray, similarity: float, count: int, index: Index = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (i < j) of which one is among the `count` nearest of the other, at least so similar.

    Vectors are unit vectors, float32 [N, D]; the pairs are int64 [P, 2], sorted, with their cosines, float32 [P].
    "auto" takes FAISS, if it is installed, from 20,000 vectors on.
    """
    if index == "auto":
        index = "faiss" if len(vectors) >= _AUTO_FAISS and has_faiss() else "exact"
    count = min(count, len(vectors) - 1)
    if count < 1:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    search = _search_faiss if index == "faiss" else _search_exact
    found, cosines = search(vectors, count + 1)
    me = np.arange(len(vectors))[:, None]
    keep = (found != me) & (found >= 0) & (cosines >= similarity)
    pairs = np.stack([np.broadcast_to(me, found.shape)[keep], found[keep]], 1)
    pairs.sort(axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    return pairs.astype(np.int64), cosines[keep][first]


def _search_exact(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    places = np.empty((len(vectors), count), np.int64)
    cosines = np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        alike = vectors[start : start + _BLOCK] @ vectors.T
        nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        places[start : start + _BLOCK] = nearest
        cosines[start : start + _BLOCK] = np.take_along_axis(alike, nearest, axis=1)
    return places, cosines


def _search_faiss(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    faiss = _faiss()
    size, length = vectors.shape
    if size <= _EXACT_FAISS:
        index = faiss.IndexFlatIP(length)
    else:
        cells = int(4 * size**0.5)
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(length),
            length,
            cells,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.seed, index.cp.niter = 0, 5
        index.train(vectors[:: max(1, size // (cells * _TRAINING))])
        index.nprobe = _PROBES
    places = np.empty((size, count), np.int64)
    cosines = np.empty((size, count), np.float32)
    for start in range(0, size, _EXACT_FAISS):
        index.add(vectors[start : start + _EXACT_FAISS])
    for start in range(0, size, _BLOCK):
        cosines[start : start + _BLOCK], places[start : start + _BLOCK] = index.search(
            vectors[start : start + _BLOCK], count
        )
    return places, cosines


def has_faiss() -> bool:
    """Whether FAISS is installed."""
    return importlib.util.find_spec("faiss") is not None


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingError("the index faiss needs faiss-cpu", "pip install 'hy-data[faiss]'") from None
    return faiss


def fit_faiss_centroids(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return unit centroids of unit vectors by spherical k-means of FAISS, float32 [count, D]."""
    faiss = _faiss()
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=20,
        seed=seed,
        spherical=True,
        max_points_per_centroid=256,
        min_points_per_centroid=1,
    )
    kmeans.train(vectors)
    centroids: np.ndarray = kmeans.centroids.reshape(count, -1)
    return centroids
