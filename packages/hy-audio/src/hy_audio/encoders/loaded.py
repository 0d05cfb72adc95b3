"""A model that is loaded, used and let go."""

from __future__ import annotations

import gc
from typing import Any, Self

import torch
from hy_core.errors import HyError
from torch import nn


class Loaded:
    """Holds a network until `free` or the end of a `with` block."""

    def __init__(self, network: nn.Module) -> None:
        self._network: nn.Module | None = network.eval().requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """HyError after `free`."""
        if self._network is None:
            raise HyError(f"the {type(self).__name__} was freed", "load it again to encode more")
        return self._network

    @property
    def config(self) -> Any:
        """The configuration of the network of transformers."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def free(self) -> None:
        """Let the network go and hand its memory back to the system or the device."""
        self._network = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
