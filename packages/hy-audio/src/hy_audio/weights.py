"""Our own audio networks to files and back: safetensors that carry their configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from hy_core.errors import HyError
from hy_core.weights import save_safetensors
from hy_core.weights.files import find, load_state, metadata
from hy_core.weights.strict import fill
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def save_network(network: nn.Module, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a network with its `config`, whole or not at all; see `narrowed` for `dtype`."""
    state = narrowed(network.state_dict(), dtype)
    save_safetensors(path, state, {"config": json.dumps(network.config.to_json())})


def narrowed(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors in a shorter format, for files; as they are if it can't hold all of their values, or for None."""
    if dtype is None or any(float(one.abs().max()) > torch.finfo(dtype).max for one in state.values()):
        return state
    return {name: one.to(dtype) for name, one in state.items()}


def load_network(
    kind: type[Network],
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Network:
    """Load what `save_network` wrote, strictly: `kind(config)` with the configuration that the file carries."""
    path = find(Path(path))
    state = load_state(path)
    try:
        config = json.loads(metadata(path)["config"])
    except (KeyError, ValueError):
        raise HyError(
            f"{path} doesn't say which {kind.__name__} it is", hint="expected a file that hy wrote"
        ) from None
    with torch.device("meta"):
        network = kind(kind.Config.from_dict(config))
    fill(network, state, f"the {kind.__name__} weights of {path}", device=device, dtype=dtype)
    return network.eval()
