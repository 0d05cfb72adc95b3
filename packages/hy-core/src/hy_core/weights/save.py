"""Write weights whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hy_core.dit.model import DiT
from hy_core.dit.ports import port_owner
from hy_core.errors import HyError
from hy_core.files import atomic


def save_safetensors(
    path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file that appears, or replaces an older one, only when it is complete.

    HyError if the folder can't be written or the disk is full; nothing is left behind then.

    Tensors of any shape by their names.
    """
    path = Path(path)
    try:
        with atomic(path) as temporary:
            save_file(_own(state), temporary, dict(metadata or {}))
    except SafetensorError as error:  # a full disk
        raise HyError(f"cannot write {path}: {error}", "check the folder and the disk") from None


def save_dit(dit: DiT, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a DiT with its configuration, without the modules of plugins."""
    state = {key: tensor for key, tensor in dit.state_dict().items() if port_owner(key) is None}
    save_safetensors(path, state, {"config": json.dumps(dit.config.to_json()), **(metadata or {})})


def save_port_weights(
    dit: DiT, name: str, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the modules that plugin `name` attached to a DiT, with their full keys."""
    state = dit.state_dict()
    keys = [key for key in state if port_owner(key) == name]
    save_safetensors(path, {key: state[key] for key in keys}, {"plugin": name, **(metadata or {})})


def _own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that don't share memory, as the format requires: views and repeated tensors are copied."""
    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in state.items():
        tensor = tensor.detach()
        alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        alone = alone and (not tensor.nbytes or tensor.data_ptr() not in seen)
        whole[key] = tensor if alone else tensor.contiguous().clone()
        seen.add(whole[key].data_ptr())
    return whole
