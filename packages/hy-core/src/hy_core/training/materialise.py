"""Networks on the meta device, and the values that they get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from torch import Tensor, nn

from hy_core.errors import HyError


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters and buffers by name, those that no checkpoint holds included; any shape."""
    return chain(module.named_parameters(), module.named_buffers())


def is_meta(module: nn.Module) -> bool:
    """Return whether any parameter or buffer has no memory yet."""
    return any(tensor.is_meta for _, tensor in tensors(module))


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put values in place of those on the meta device; parameters keep whether they are trained.

    `state` holds tensors of any shape by name; no copy is made. `HyError` if one is missing or of another
    shape.
    """
    wanted = dict(tensors(module))
    wrong = [key for key, one in wanted.items() if key not in state or state[key].shape != one.shape]
    if wrong:
        raise HyError(f"{len(wrong)} tensors of the network have no initial values, {wrong[0]} first")
    for key, old in wanted.items():
        owner, _, name = key.rpartition(".")
        value, holder = state[key].detach(), module.get_submodule(owner)
        if isinstance(old, nn.Parameter):
            setattr(holder, name, nn.Parameter(value, requires_grad=old.requires_grad))
        else:
            holder._buffers[name] = value


def registered_methods(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the methods beside `forward` that read parameters: each with the module that states it.

    A module states them in `forward_methods`. FSDP2 must know them (`register_fsdp_forward_method`), as it gathers
    parameters in calls of `forward` alone.
    """
    return [(one, name) for one in module.modules() for name in getattr(one, "forward_methods", ())]
