"""What objectives read of a recipe, and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Recipe(Protocol):
    """What an objective reads of a recipe.

    The tables `model`, `data` and `options` are the objective's own to check (`hy_core.tables.from_table` makes a
    dataclass of one); `conditioning` holds a table for each plugin that conditions the network. `init_from` names the
    weights that training starts from, "" for random ones.
    """

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def plugins(self) -> tuple[str, ...]: ...
    @property
    def init_from(self) -> str: ...
    @property
    def model(self) -> dict[str, Any]: ...
    @property
    def data(self) -> dict[str, Any]: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def conditioning(self) -> Mapping[str, Any]: ...


def seeded(*numbers: int) -> int:
    """Return one seed of 63 bits for several numbers (seed, step, rank, ...)."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
