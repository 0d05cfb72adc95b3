"""Find the weights among what a trainer saves beside and around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hy_core.errors import HyError

T = TypeVar("T")

#: Names under which trainers save the weights of one model among other things; the first that is there is taken.
WRAPPERS = (
    "module",
    "ema",
    "ema_state_dict",
    "ema_model",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "generator",
)
#: What wrapper classes insert into the names of a network's parameters, anywhere in them.
_SEGMENTS = {
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",  # FullyShardedDataParallel
    "_checkpoint_wrapped_module",  # activation checkpointing
    "_forward_module",  # Lightning's strategies
}
_NOT_WEIGHTS = ("optim", "sched", "scaler", "rng")
_DEPTH = 6


def unwrap(content: Any, is_tensor: Callable[[Any], bool]) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Find the tensors of the network in nested dictionaries, and the plain values beside them (as text).

    Of several networks the one with the first of the names in WRAPPERS is taken; counters and single tensors beside
    them are left out. None if there are no tensors.
    """
    notes: dict[str, str] = {}
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            return None
        notes |= {
            str(key): str(value) for key, value in content.items() if isinstance(value, str | int | float)
        }
        inner = _inner(content, is_tensor)
        if inner is None:
            tensors = {str(key): value for key, value in content.items() if is_tensor(value)}
            return (tensors, notes) if tensors else None
        content = inner
    return None


def _inner(content: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> Any:
    """The dictionary inside that holds the network; None if `content` holds it itself."""
    counted: dict[int, int] = {}
    sizes = {
        key: _count(value, is_tensor, counted, _DEPTH)
        for key, value in content.items()
        if isinstance(value, Mapping) and not any(part in str(key) for part in _NOT_WEIGHTS)
    }
    for name in WRAPPERS:
        if sizes.get(name):
            return content[name]
    here = sum(map(is_tensor, content.values()))
    largest = max(sizes, key=lambda key: sizes[key], default=None)
    return content[largest] if largest is not None and sizes[largest] > here else None


def _count(content: Any, is_tensor: Callable[[Any], bool], counted: dict[int, int], depth: int) -> int:
    """The most tensors that one dictionary in `content` has; each dictionary is visited once, by its id."""
    if not isinstance(content, Mapping) or not depth:
        return 0
    if id(content) not in counted:
        counted[id(content)] = 0
        here = sum(map(is_tensor, content.values()))
        inside = (_count(value, is_tensor, counted, depth - 1) for value in content.values())
        counted[id(content)] = max([here, *inside])
    return counted[id(content)]


def without_segments(state: Mapping[str, T], where: object) -> dict[str, T]:
    """The same entries without what torch.compile, FSDP and the like insert into names.

    Raises HyError if two names become one.
    """
    plain: dict[str, T] = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in _SEGMENTS)
        if name in plain:
            raise HyError(f"{where} has {name[:100]} twice, in a wrapped network and out of it")
        plain[name] = value
    return plain


def rank(prefix: str) -> int:
    """The order of preference of networks whose parameters carry a prefix in one flat file."""
    names = [part for part in prefix.split(".") if part in WRAPPERS]
    return WRAPPERS.index(names[0]) + 1 if names else 0
