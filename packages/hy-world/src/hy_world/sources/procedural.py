"""What the world's sources have in common: clips that are generated from a seed and an index."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from hy_core.data import ClipShape, SourceSpec, check_split, fingerprint
from hy_core.errors import UsageError
from hy_core.training import seeded

ClipT = TypeVar("ClipT")


class ProceduralSource(Generic[ClipT]):
    """A source of `spec.count` generated clips of one shape. Subclasses define `draw`, and raise `version` with it.

    `UsageError` for a specification without a count.
    """

    version = 1

    def __init__(self, spec: SourceSpec) -> None:
        check_split(spec.split)
        if spec.count < 1:
            raise UsageError(
                f"data.source = {spec.name!r} generates clips, but clips = {spec.count}",
                "say how many: clips = 4096",
            )
        self.spec = spec
        self.fingerprint = fingerprint(spec, version=self.version)

    def __len__(self) -> int:
        return self.spec.count

    def __getitem__(self, index: int) -> ClipT:
        if not 0 <= index < self.spec.count:
            raise IndexError(index)
        spec = self.spec
        return self.draw(
            np.random.default_rng(seeded(spec.seed, 5, spec.frames, spec.height, spec.width, index))
        )

    def shape(self, index: int) -> ClipShape:
        """Return the shape that the specification asks for; all clips have it."""
        return ClipShape(self.spec.frames, self.spec.height, self.spec.width)

    def draw(self, rng: np.random.Generator) -> ClipT:
        """Generate a clip of the specified split and shape."""
        raise NotImplementedError
