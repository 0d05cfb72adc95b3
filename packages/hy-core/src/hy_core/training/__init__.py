"""Contracts of training: an objective, the batch it learns from, and the recipe it reads."""

from __future__ import annotations

from hy_core.training.batch import TrainingBatch
from hy_core.training.objective import Objective, Workload
from hy_core.training.recipe import Recipe, seeded

__all__ = ["Objective", "Recipe", "TrainingBatch", "Workload", "seeded"]
