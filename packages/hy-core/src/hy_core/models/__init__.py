"""The models that `hy` can run: find one, read its defaults, load it. Torch is imported only to load."""

from __future__ import annotations

from hy_core.models.finding import FOLDERS, NEGATIVE, NEGATIVE_I2V, POCKET, configs, defaults, find
from hy_core.models.hashing import fingerprint, fingerprints
from hy_core.models.loading import Model, load
from hy_core.models.precisions import Precision, precision
from hy_core.models.spec import Defaults, ModelSpec

__all__ = [
    "FOLDERS",
    "NEGATIVE",
    "NEGATIVE_I2V",
    "POCKET",
    "Defaults",
    "Model",
    "ModelSpec",
    "Precision",
    "configs",
    "defaults",
    "find",
    "fingerprint",
    "fingerprints",
    "load",
    "precision",
]
