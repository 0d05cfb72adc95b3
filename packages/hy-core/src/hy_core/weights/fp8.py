"""The official 8-bit files: weights as float8 numbers, and one scale for each layer in a map beside them.

They save disk and download, not arithmetic: a weight is its numbers times its layer's scale, and is put together in
the dtype that the model runs in, tensor by tensor (core facts 2.14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hy_core.errors import HyError, MissingError
from hy_core.weights.keys import Source

DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class Scaled(Source):
    """Where a parameter of 8-bit numbers comes from, and what they are multiplied by."""

    scale: float = 1.0

    def build(self, parts: list[Tensor]) -> Tensor:
        return Source(self.keys, self.swap).build([part.to(torch.bfloat16) for part in parts]) * self.scale


def map_of(file: Path) -> Path:
    """Where the official code has the scales of a file: beside it, as `NAME_map.pt`."""
    return file.with_name(f"{file.stem}_map{file.suffix}")


def scaled(
    file: Path, state: Mapping[str, Tensor], source: Callable[[str], Source | None]
) -> Callable[[str], Source | None]:
    """The same `source`, with the scale of each 8-bit tensor of a file; MissingError without its map."""
    eight = {key for key, tensor in state.items() if tensor.dtype in DTYPES}
    if not eight:
        return source
    from hy_core.weights.files import load_state

    if not map_of(file).is_file():
        raise MissingError(
            f"{file} holds 8-bit floats, which mean nothing without their scales: {map_of(file).name} is missing",
            "put it beside the file, or use the bfloat16 file",
        )
    scales = load_state(map_of(file))

    def scale_of(key: str) -> float:
        found = scales.get(key.removesuffix(".weight"), scales.get(key))
        if found is None or found.numel() != 1:
            raise HyError(f"{map_of(file)} has no scale for {key}", "copy or fetch both files again")
        return float(found)

    def with_scale(key: str) -> Source | None:
        found = source(key)
        if found is None or not eight.intersection(found.keys):
            return found
        numbers = {scale_of(part) for part in found.keys}
        if len(numbers) > 1:
            raise HyError(f"the parts of {key} have scales of their own", "use the bfloat16 file")
        return Scaled(found.keys, found.swap, numbers.pop())

    return with_scale
