"""A forest of decision trees as plain arrays in a safetensors file; scikit-learn isn't needed to use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hy_core.errors import HyError, MissingError
from hy_core.files import atomic

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesClassifier

_LEAF = 255
_MOST_BYTES = 64 << 20
_ARRAYS = {
    "roots": "uint32",
    "feature": "uint8",
    "threshold": "float32",
    "right": "uint16",
    "leaves": "float32",
}


@dataclass(frozen=True)
class Forest:
    """Trees one after the other, each in depth-first order, so that a node's left child follows it.

    `roots` uint32 [trees], the first node of each; per node `feature` uint8, 255 for a leaf; `threshold` float32: a
    sample goes to the left if its feature isn't larger; `right` uint16, how far the right child is behind the node, or
    the row of a leaf in `leaves` float32 [distributions, classes].
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    right: np.ndarray
    leaves: np.ndarray
    classes: tuple[str, ...]
    features: int

    def probabilities(self, sample: np.ndarray) -> np.ndarray:
        """Return the mean over the trees, float64 [classes], for features float32 [F]."""
        if sample.shape != (self.features,):
            raise HyError(f"the forest takes {self.features} features, got {sample.shape}")
        node = self.roots.astype(np.int64)
        sample = np.append(sample.astype(np.float32), np.float32(0))
        while True:
            feature = self.feature[node].astype(np.int64)
            is_inner = feature != _LEAF
            if not is_inner.any():
                return np.asarray(self.leaves[self.right[node]].astype(np.float64).mean(0))
            goes_left = sample[np.where(is_inner, feature, -1)] <= self.threshold[node]
            node = node + np.where(is_inner, np.where(goes_left, 1, self.right[node]), 0)

    def save(self, path: Path | str) -> None:
        """Write the file, atomically."""
        from safetensors.numpy import save_file

        about = {"classes": json.dumps(self.classes), "features": str(self.features)}
        with atomic(path) as temporary:
            save_file({name: getattr(self, name) for name in _ARRAYS}, temporary, about)

    @classmethod
    def load(cls, path: Path | str) -> Forest:
        """Read a file that `save` wrote; `MissingError` if there is none, `HyError` for any other content."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise MissingError(f"no such forest: {path}", "write one with hy data camera train")
        if path.stat().st_size > _MOST_BYTES:
            raise HyError(f"{path} is no forest: it is larger than {_MOST_BYTES >> 20} MB")
        try:
            with safe_open(path, "numpy") as file:
                about = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            classes = tuple(str(one) for one in json.loads(about["classes"]))
            forest = cls(**arrays, classes=classes, features=int(about["features"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise HyError(f"{path} is no forest ({error})", "write one with hy data camera train") from None
        forest._check(path)
        return forest

    def _check(self, path: Path) -> None:
        nodes, arrays = len(self.feature), {name: getattr(self, name) for name in _ARRAYS}
        is_good = all(one.dtype == _ARRAYS[name] for name, one in arrays.items())
        is_good = is_good and all(one.shape == (nodes,) for one in (self.feature, self.threshold, self.right))
        is_good = is_good and self.leaves.ndim == 2 and self.leaves.shape[1] == len(self.classes)
        is_good = is_good and self.roots.ndim == 1 and 0 < self.features < _LEAF and len(self.roots) > 0
        if is_good:
            leaf, place = self.feature == _LEAF, np.arange(nodes)
            is_good = bool(
                (self.roots < nodes).all()
                and (self.feature[~leaf] < self.features).all()
                and (self.right[leaf] < len(self.leaves)).all()
                and (self.right[~leaf] > 0).all()
                and (place[~leaf] + self.right[~leaf] < nodes).all()
                and np.isfinite(self.leaves).all()
            )
        if not is_good:
            raise HyError(f"{path} is no forest: its arrays don't fit together", "train it again")


def from_sklearn(model: ExtraTreesClassifier, classes: tuple[str, ...]) -> Forest:
    """Convert a fitted forest of scikit-learn; `classes` are all names, those that it hasn't get probability 0.

    `HyError` if a tree is too large for the format.
    """
    columns = [classes.index(name) for name in model.classes_]
    parts: dict[str, list[Any]] = {"feature": [], "threshold": [], "right": []}
    rows: dict[bytes, int] = {}
    roots, nodes = [], 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        is_leaf = tree.children_left < 0
        place = np.arange(tree.node_count)
        offset = np.where(is_leaf, 0, tree.children_right - place)
        if (tree.children_left[~is_leaf] != place[~is_leaf] + 1).any() or offset.max() > 65535:
            raise HyError("a tree has another order or too many nodes for the format")
        shares = np.zeros((tree.node_count, len(classes)), np.float32)
        shares[:, columns] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
        for node in place[is_leaf]:
            offset[node] = rows.setdefault(shares[node].tobytes(), len(rows))
        parts["feature"].append(np.where(is_leaf, _LEAF, tree.feature).astype(np.uint8))
        parts["threshold"].append(np.where(is_leaf, np.float32(0), _floor(tree.threshold)))
        parts["right"].append(offset.astype(np.uint16))
        roots.append(nodes)
        nodes += tree.node_count
    leaves = np.stack([np.frombuffer(row, np.float32) for row in rows])
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    return Forest(
        np.array(roots, np.uint32), **arrays, leaves=leaves, classes=classes, features=model.n_features_in_
    )


def _floor(values: np.ndarray) -> np.ndarray:
    """Return the largest float32 not above each: for a float32 x, x <= it exactly when x <= the value."""
    near = values.astype(np.float32)
    return np.where(near.astype(np.float64) > values, np.nextafter(near, np.float32(-np.inf)), near)
