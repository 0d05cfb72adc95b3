"""Concepts of a set of clips: centroids of their vectors by k-means, and weights that balance sampling over them.

The paper (arXiv 2412.03603, section 3.1) has about 10,000 centroids; smaller sets get fewer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from hy_core.files import atomic
from hy_core.options import option

from hy_data.select.neighbours import Index, fit_faiss_centroids, has_faiss, matrix

PAPER_CONCEPTS = 10_000
_PER_CONCEPT = 40  # clips that a concept has on average if its number isn't given
_BLOCK = 4096
_AUTO_FAISS = 200_000

SCHEMA = pa.schema([("id", pa.string()), ("concept", pa.int32()), ("sampling_weight", pa.float32())])


@dataclass(frozen=True)
class ConceptOptions:
    """The table `[concepts]` of a recipe."""

    count: int = option(
        0, minimum=0, maximum=1_000_000, help="centroids; 0: a 40th of the clips, at most 10,000"
    )
    alpha: float = option(
        0.5,
        minimum=0,
        maximum=1,
        help="clips of a concept of n count n^-alpha: 0 as they are, 1 all concepts alike",
    )
    cap: float = option(5.0, minimum=1, maximum=1e6, help="most weight of a clip, in means")
    vector: str = option("embedding", help="column of the vectors")
    index: Index = option(
        "auto", help="exact: scikit-learn; faiss; auto: faiss from 200,000 clips on if it is installed"
    )
    seed: int = option(0, minimum=0, maximum=2**31 - 1, help="seed of k-means")


def assign_concepts(table: pa.Table, options: ConceptOptions, folder: Path | None = None) -> pa.Table:
    """Return id, concept and sampling_weight of each row with status ok and a vector, in the table's order.

    The mean of the weights is 1. With `folder`, centroids are kept in cache/select/concepts-*.safetensors
    (`centroids`, float32 [K, D], unit vectors) and used again for the same vectors and options; alpha and cap don't
    change them. `UsageError` if there are no vectors of one length.
    """
    rows, vectors = matrix(table, options.vector)
    ids = table["id"].take(pa.array(rows))
    if not len(rows):
        return SCHEMA.empty_table()
    centroids = _cached_centroids(vectors, options, folder)
    concepts = nearest_centroids(vectors, centroids)
    weights = balanced_weights(concepts, options.alpha, options.cap)
    columns = [ids.combine_chunks(), pa.array(concepts, pa.int32()), pa.array(weights, pa.float32())]
    return pa.table(columns, schema=SCHEMA)


def fit_centroids(vectors: np.ndarray, options: ConceptOptions) -> np.ndarray:
    """Return unit centroids of unit vectors, float32 [N, D] to [K, D]: the same for the same seed."""
    count = options.count or min(PAPER_CONCEPTS, max(1, round(len(vectors) / _PER_CONCEPT)))
    count = min(count, len(vectors))
    by_faiss = options.index == "faiss" or (
        options.index == "auto" and len(vectors) >= _AUTO_FAISS and has_faiss()
    )
    if by_faiss:
        centroids = fit_faiss_centroids(vectors, count, options.seed)
    else:
        from sklearn.cluster import MiniBatchKMeans

        model = MiniBatchKMeans(
            count,
            random_state=options.seed,
            batch_size=max(1024, 4 * count),
            n_init=1,
            reassignment_ratio=0.0,
        )
        centroids = model.fit(vectors).cluster_centers_
    norms = np.linalg.norm(centroids, axis=1, keepdims=True)
    return (centroids / np.where(norms > 0, norms, 1)).astype(np.float32)


def nearest_centroids(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the index of each vector's nearest centroid by cosine, int64 [N]."""
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        found[start : start + _BLOCK] = (vectors[start : start + _BLOCK] @ centroids.T).argmax(1)
    return found


def balanced_weights(concepts: np.ndarray, alpha: float, cap: float) -> np.ndarray:
    """Return how often to draw each clip [N], mean 1: size^-alpha of its concept, at most `cap` times the mean."""
    _, inverse, sizes = np.unique(concepts, return_inverse=True, return_counts=True)
    weights = sizes[inverse].astype(np.float64) ** -alpha
    weights = np.minimum(weights, cap * weights.mean())
    return weights / weights.mean()


def resample(weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return indices [count], int64, drawn by weights [N] (systematic resampling).

    Each clip comes the whole part of its share, and a draw decides about the rest, so that none is off by one or more.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(weights))
    ends = np.cumsum(weights[order])
    points = (np.arange(count) + rng.random()) * (ends[-1] / count)
    chosen: np.ndarray = order[np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)]
    return rng.permutation(chosen)


def _cached_centroids(vectors: np.ndarray, options: ConceptOptions, folder: Path | None) -> np.ndarray:
    if folder is None:
        return fit_centroids(vectors, options)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    what = hashlib.blake2b(repr((options.count, options.index, options.seed)).encode(), digest_size=8)
    what.update(np.ascontiguousarray(vectors).data)
    file = folder / "cache" / "select" / f"concepts-{what.hexdigest()}.safetensors"
    try:
        return load_file(file)["centroids"]
    except (OSError, SafetensorError, KeyError):
        pass
    centroids = fit_centroids(vectors, options)
    with atomic(file) as temporary:
        save_file({"centroids": centroids}, temporary, metadata={"vector": options.vector})
    return centroids
