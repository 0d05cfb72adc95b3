"""Assign weights to a module: every parameter from its entry, none left over, with a readable account of misfits."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hy_core.dit.ports import port_owner
from hy_core.errors import HyError
from hy_core.weights import quantized
from hy_core.weights.keys import Source

_RUN = 4096
_RUNS = 256


def fill(
    module: nn.Module,
    state: dict[str, Tensor],
    what: str,
    source: Callable[[str], Source | None] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    keys: list[str] | None = None,
) -> None:
    """Assign to every parameter and buffer of a module, on the meta device or not, its tensor from `state`.

    `source` says which entries of `state` make up a parameter (its own name by default), and `keys` are the
    parameters to assign (all by default). Names, shapes and kinds are checked before any value is read. Each tensor is
    put together, converted to `dtype` (floating-point only; None leaves it), moved to `device` and removed from
    `state`, so that one copy of the model exists. `what` names the weights in messages.

    Raises HyError with the first three of each kind of misfit, and for values that are NaN or infinite.

    Tensors of any shape by their names.
    """
    source = source or (lambda key: Source((key,)))
    targets = module.state_dict(keep_vars=True)
    wanted = {key: targets[key] for key in keys} if keys is not None else targets
    plan = plan_of(wanted, state, source, what)
    for key, found in plan.items():
        tensor = found.build([state.pop(part) for part in found.keys])
        if not finite(tensor):
            raise HyError(
                f"{what} are broken: {key} has values that aren't numbers (NaN or infinity)",
                hint="the file was saved broken; get it again from its source",
            )
        old = wanted[key]
        tensor = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        owner, _, name = key.rpartition(".")
        holder = module.get_submodule(owner)
        if isinstance(old, nn.Parameter):
            setattr(holder, name, nn.Parameter(tensor, requires_grad=old.requires_grad))
        else:
            setattr(holder, name, tensor)


def plan_of(
    wanted: dict[str, Tensor], state: dict[str, Tensor], source: Callable[[str], Source | None], what: str
) -> dict[str, Source]:
    """Return, for each wanted parameter, the entries of `state` that make it up; no value is read.

    Raises HyError with the first three of each kind of misfit: names, shapes, numbers that aren't floats.

    Tensors of any shape by their names; those of `wanted` may be on the meta device.
    """
    plan: dict[str, Source] = {}
    missing, shapes = [], []
    for key, target in wanted.items():
        found = source(key)
        lost = [key] if found is None else [part for part in found.keys if part not in state]
        missing += lost
        if found is None or lost:
            continue
        plan[key] = found
        theirs = found.shape([tuple(state[part].shape) for part in found.keys])
        if theirs != tuple(target.shape):
            shapes.append(f"{found.keys[0]} is {list(theirs)} and not {list(target.shape)}")
    used = {part for found in plan.values() for part in found.keys}
    unexpected = sorted(set(state) - used - set(missing))
    if missing or unexpected or shapes:
        raise HyError(misfit(what, missing, unexpected, shapes), hint=_cause(missing, unexpected, shapes))
    scaled = {part for found in plan.values() if isinstance(found, quantized.Scaled) for part in found.keys}
    for key, found in plan.items():
        for part in found.keys:
            kind = state[part].dtype
            if part not in scaled and wanted[key].is_floating_point() and not _is_plain_float(kind):
                raise HyError(
                    f"{what} hold {part} as {str(kind).removeprefix('torch.')}",
                    hint="expected floats of 16, 32 or 64 bits",
                )
    return plan


def _is_plain_float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize > 1


def misfit(what: str, missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    """Return one line that names up to three of each kind of misfit."""
    parts = [
        f"{len(some)} {kind} ({', '.join(one[:100] for one in some[:3])}{', ...' if len(some) > 3 else ''})"
        for kind, some in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if some
    ]
    return f"{what} don't fit: {', '.join(parts)}"


def _cause(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    """The likely cause of a misfit."""
    if names := {name for key in unexpected if (name := port_owner(key))}:
        return "; ".join(f"weights of plugin {name!r}: add --plugin {name}" for name in sorted(names))
    if missing and all("guidance" in key for key in missing):
        return "the model isn't guidance-distilled: `guidance` is false in its config"
    if unexpected and all("guidance" in key for key in unexpected):
        return "the model is guidance-distilled: `guidance` is true in its config"
    numbered = [key for key in [*missing, *unexpected] if re.search(r"blocks\.\d+\.", key)]
    if numbered and len(numbered) == len(missing) + len(unexpected):
        return "the config has another number of blocks than the weights"
    if any("img_in" in shape or "x_embedder" in shape for shape in shapes) and len(shapes) <= 1:
        return "the number of input channels differs: 33 are those of an image-to-video model"
    if shapes and not missing and not unexpected:
        return "the config is that of a model of another size"
    if missing and not unexpected:
        return "the file isn't complete: copy or fetch it again"
    return "these are the weights of another model, or of another version of it"


def finite(tensor: Tensor) -> bool:
    """Return whether no value of a tensor is NaN or infinite; of over 1,048,576 values, 256 runs of 4,096 are read.

    The tensor has any shape.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    flat = tensor.reshape(-1)
    runs = [flat]
    if flat.numel() > _RUN * _RUNS:
        step = flat.numel() // _RUNS
        runs = [flat.as_strided((_RUNS, _RUN), (step, 1), flat.storage_offset()), flat[-_RUN:]]
    # A sum is finite only if all of its terms are: one pass, no mask. It may overflow: look again then.
    return all(bool(run.sum(dtype=torch.float32).isfinite()) or bool(run.isfinite().all()) for run in runs)
