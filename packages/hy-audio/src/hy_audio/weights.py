"""Our own audio networks to files and back: safetensors that carry their configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from hy_core.errors import HyError
from hy_core.tables import parse_json
from hy_core.weights import save_safetensors
from hy_core.weights.files import find, load_state, metadata
from hy_core.weights.strict import fill
from torch import Tensor, nn


class ConfiguredNetwork(nn.Module):
    """A network made of a configuration, which its files carry."""

    Config: ClassVar[Any]
    """Class of the configuration, with `from_dict` and `to_json`."""
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


Network = TypeVar("Network", bound=ConfiguredNetwork)


def save_network(network: ConfiguredNetwork, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a network with its `config`, atomically; see `to_storage_dtype` for `dtype`."""
    state = to_storage_dtype(network.state_dict(), dtype)
    save_safetensors(path, state, {"config": json.dumps(network.config.to_json())})


def to_storage_dtype(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors as `dtype`; unchanged for None, or if a value is out of its range."""
    if dtype is None or any(float(one.abs().max()) > torch.finfo(dtype).max for one in state.values()):
        return state
    return {name: one.to(dtype) for name, one in state.items()}


def load_network(
    kind: type[Network],
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Network:
    """Load what `save_network` wrote, strictly, as `kind(config)` of the configuration in the file, in eval mode.

    `dtype` None keeps the file's. `MissingError` for no file; `HyError` for damage and for tensors that don't fit.
    """
    path = find(Path(path))
    state = load_state(path)
    text = metadata(path).get("config")
    if text is None:
        raise HyError(f"{path} has no {kind.__name__} configuration", hint="expected a file that hy wrote")
    config = kind.Config.from_dict(parse_json(text, f"the config of {path}"))
    blocks = sum(getattr(config, name, 0) for name in ("depth_triple", "depth_single", "blocks"))
    if blocks > len(state):
        raise HyError(f"{path} is damaged: it has {len(state)} tensors, but its config says {blocks} blocks")
    with torch.device("meta"):
        network: Network = kind(config)
    fill(network, state, f"the {kind.__name__} weights of {path}", device=device, dtype=dtype)
    return network.eval()
