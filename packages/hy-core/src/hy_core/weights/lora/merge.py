"""Add a LoRA file to a DiT's own weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hy_core.dit import DiT
from hy_core.errors import HyError
from hy_core.weights.files import find, open_checkpoint
from hy_core.weights.lora.changes import (
    MisfitError,
    alpha_of,
    changed_bias,
    changed_weight,
    changes_bias,
    changes_weight,
    check,
    rank_of,
)
from hy_core.weights.lora.names import Target, layers, resolve
from hy_core.weights.lora.read import LoraFile, read
from hy_core.weights.lora.trained import KIND, attach_trained
from hy_core.weights.strict import finite


@dataclass(frozen=True)
class _Step:
    """A change of one layer that was checked."""

    name: str
    target: Target
    parts: dict[str, Tensor]
    factor: float


def merge(dit: DiT, path: str | Path, scale: float = 1.0) -> int:
    """Add a LoRA file to a DiT in place, `scale` times; returns the number of layers that it changes.

    Reads LoRA, DoRA, LoHa and LoKr, biases and norms, at the strength that the file or the adapter_config.json beside
    it states (see `strength`). Bottlenecks, which aren't linear, are attached. Raises HyError in one line, with the DiT
    unchanged, if a layer isn't this network's, a shape doesn't fit, or a value is NaN or infinite.
    """
    checkpoint = open_checkpoint(find(Path(path)))
    if KIND in checkpoint.metadata:
        return attach_trained(dit, checkpoint, path, scale)
    file, targets = read(path), layers(dit)
    places: dict[Target, tuple[str, dict[str, Tensor]]] = {}
    for name, found in file.layers.items():
        plain, target = resolve(name, targets)
        if target is None:
            raise HyError(
                f"{path} is for a layer that this network doesn't have: {plain[:100]}",
                "it is another model's LoRA",
            )
        _, parts = places.setdefault(target, (plain, {}))
        if parts.keys() & found.keys():
            raise HyError(f"{path} has {plain[:100]} under two names", "the file was saved broken")
        parts.update(found)
    steps = [_plan(dit, file, name, target, parts) for target, (name, parts) in places.items()]
    with torch.no_grad():
        for step in steps:
            _apply(dit, step, scale)
            module = dit.get_submodule(step.target.layer)
            if not all(finite(parameter) for parameter in module.parameters(recurse=False)):
                raise HyError(
                    f"{path} at strength {scale * step.factor:g} makes {step.name[:100]} infinite",
                    "use a smaller scale",
                )
    return len(steps)


def _plan(dit: DiT, file: LoraFile, name: str, target: Target, parts: dict[str, Tensor]) -> _Step:
    """Check one layer of a file against the DiT."""
    module = dit.get_submodule(target.layer)
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, Tensor)
    try:
        rank = rank_of(parts)
        check(parts, target.rows, weight[0].numel())
        if changes_bias(parts) and bias is None:
            raise MisfitError("it adds to a bias, and this layer has none")
        for kind, tensor in parts.items():
            if kind != "alpha" and not (tensor.is_floating_point() and tensor.dtype.itemsize > 1):
                raise MisfitError(f"its {kind} is {str(tensor.dtype).removeprefix('torch.')}")
            if not finite(tensor):
                raise MisfitError("it has values that aren't numbers (NaN or infinity)")
        factor = 1.0 if rank is None else file.strength.factor(name, rank, alpha_of(parts))
        if not math.isfinite(factor):
            raise MisfitError("its strength is infinite")
    except MisfitError as error:
        raise HyError(
            f"{file.path}: {name[:100]}: {error}", "it is another model's LoRA, or was saved broken"
        ) from None
    return _Step(name, target, parts, factor)


def _apply(dit: DiT, step: _Step, scale: float) -> None:
    """Change a layer's rows in place, in the order of rows that the file has."""
    module, target = dit.get_submodule(step.target.layer), step.target
    for name, changes, changed in (
        ("weight", changes_weight, changed_weight),
        ("bias", changes_bias, changed_bias),
    ):
        if not changes(step.parts):
            continue
        parameter = getattr(module, name)
        rows = parameter[target.start : target.start + target.rows]
        theirs = rows.float().reshape(len(rows), -1) if name == "weight" else rows.float()
        theirs = _swapped(theirs) if target.swap else theirs
        new = changed(theirs, step.parts, step.factor, scale)
        rows.copy_((_swapped(new) if target.swap else new).view_as(rows))


def _swapped(rows: Tensor) -> Tensor:
    return torch.cat(rows.chunk(2)[::-1])
