"""Concepts: centroids are found again with the same seed, weights balance them, nearest neighbours by two indices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hy_core.errors import UsageError
from hy_data.select import concepts, neighbours
from hy_data.select.concepts import (
    ConceptOptions,
    assign_concepts,
    balanced_weights,
    fit_centroids,
    nearest_centroids,
    resample,
)
from hy_data.select.neighbours import matrix, near_pairs
from safetensors.numpy import load_file

SIZES = (300, 60, 30, 10)


def clusters(sizes: tuple[int, ...] = SIZES, length: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a centre for each size, shuffled, and the number of each one's centre."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(sizes), length))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = centres[labels] + 0.2 * rng.normal(size=(len(labels), length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def table_of(vectors: np.ndarray, status: str = "ok") -> pa.Table:
    ids = [f"{index:05d}" for index in range(len(vectors))]
    column = pa.array(list(vectors.astype(np.float16)), pa.list_(pa.float16()))
    return pa.table({"id": ids, "status": [status] * len(ids), "embedding": column})


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_concepts_are_the_groups_and_the_same_again(index: str) -> None:
    if index == "faiss":
        pytest.importorskip("faiss")
    vectors, labels = clusters()
    options = ConceptOptions(count=12, index=index)  # type: ignore[arg-type]
    centroids = fit_centroids(vectors, options)
    assert centroids.dtype == np.float32 and np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    found = nearest_centroids(vectors, centroids)
    pure = [np.bincount(labels[found == one]).max() for one in set(found)]
    assert sum(pure) > 0.9 * len(labels), "a concept has clips of one group"
    assert np.array_equal(centroids, fit_centroids(vectors, options))


def test_the_number_of_concepts_follows_the_set() -> None:
    vectors, _ = clusters()
    assert len(fit_centroids(vectors, ConceptOptions())) == 10
    assert len(fit_centroids(vectors[:3], ConceptOptions(count=50))) == 3


def test_weights_balance_concepts_up_to_the_cap() -> None:
    _, labels = clusters()
    for alpha, spread in ((0.0, 30.0), (0.5, 30.0**0.5), (1.0, 1.0)):
        weights = balanced_weights(labels, alpha, cap=1e6)
        assert weights.mean() == pytest.approx(1)
        drawn = np.bincount(labels, weights)
        assert drawn.max() / drawn.min() == pytest.approx(spread)
    capped = balanced_weights(labels, 1.0, cap=3.0)
    assert capped.max() / balanced_weights(labels, 1.0, 1e6).max() < 0.5
    assert capped.mean() == pytest.approx(1)


def test_resampling_gives_each_clip_its_share() -> None:
    weights = balanced_weights(clusters()[1], 0.5, 5)
    chosen = resample(weights, 2000, seed=3)
    counts = np.bincount(chosen, minlength=len(weights))
    assert np.abs(counts - weights * 5).max() < 1
    assert np.array_equal(chosen, resample(weights, 2000, seed=3))
    assert not np.array_equal(chosen, resample(weights, 2000, seed=4))


def test_centroids_are_kept_and_weights_need_no_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, labels = clusters()
    table = table_of(vectors)
    options = ConceptOptions(count=4)
    first = assign_concepts(table, options, tmp_path)
    assert first.column_names == ["id", "concept", "sampling_weight"]
    assert first.schema.types == [pa.string(), pa.int32(), pa.float32()]
    (file,) = (tmp_path / "cache" / "select").glob("concepts-*.safetensors")
    assert load_file(file)["centroids"].shape == (4, 32)

    calls: list[int] = []
    fit = concepts.fit_centroids
    monkeypatch.setattr(concepts, "fit_centroids", lambda *a: calls.append(1) or fit(*a))  # type: ignore[func-returns-value]
    flat = assign_concepts(table, replace(options, alpha=0.0), tmp_path)
    assert not calls and set(flat["sampling_weight"].to_pylist()) == {1.0}
    assert flat["concept"] == first["concept"]
    assign_concepts(table, replace(options, seed=1), tmp_path)
    assert calls
    rare = np.asarray(first["sampling_weight"])[labels == 3]
    assert rare.min() > np.asarray(first["sampling_weight"])[labels == 0].max()


def test_rows_without_a_vector_and_dropped_ones_have_no_concept() -> None:
    vectors, _ = clusters()
    table = table_of(vectors)
    nulls = pa.array([None, *table["embedding"].to_pylist()[1:]], table["embedding"].type)
    table = table.set_column(2, "embedding", nulls)
    statuses = pa.array(["ok", "failed", *["ok"] * (len(table) - 2)])
    table = table.set_column(1, "status", statuses)
    found = assign_concepts(table, ConceptOptions(count=2))
    assert len(found) == len(table) - 2 and found["id"][0].as_py() == "00002"
    assert len(assign_concepts(table.slice(0, 2), ConceptOptions())) == 0


def test_vectors_of_two_models_are_an_error() -> None:
    mixed = pa.table({"id": ["a", "b"], "embedding": pa.array([[1.0, 0.0], [1.0]], pa.list_(pa.float32()))})
    with pytest.raises(UsageError, match="1 to 2 numbers"):
        matrix(mixed, "embedding")


def test_both_indices_find_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    vectors, labels = clusters()
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    exact, cosines = near_pairs(vectors, 0.6, 8, "exact")
    faiss, others = near_pairs(vectors, 0.6, 8, "faiss")
    assert len(exact) > 400 and np.array_equal(exact, faiss)
    assert np.allclose(cosines, others, atol=1e-5)
    assert np.allclose(cosines, (vectors[exact[:, 0]] * vectors[exact[:, 1]]).sum(1), atol=1e-5)
    assert (exact[:, 0] < exact[:, 1]).all() and (labels[exact[:, 0]] == labels[exact[:, 1]]).all()
    assert (cosines >= 0.6).all()


def test_cells_of_faiss_find_nearly_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    vectors, _ = clusters((40,) * 100)
    exact, _ = near_pairs(vectors, 0.6, 3, "exact")
    monkeypatch.setattr(neighbours, "_EXACT_FAISS", 1000)
    cells, _ = near_pairs(vectors, 0.6, 3, "faiss")
    both = set(map(tuple, exact.tolist())) & set(map(tuple, cells.tolist()))
    assert len(both) > 0.95 * len(exact)
