"""The device of a model and the number formats of its networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hy_core.device import pick_device, pick_dtype

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Precision:
    """Where a model runs, and the number format of each of its networks."""

    device: torch.device
    dit: torch.dtype
    vae: torch.dtype
    text: torch.dtype


def precision(layout: str, device: str = "auto", dtype: str = "auto") -> Precision:
    """Choose device and number formats; UsageError for what isn't there."""
    import torch

    where = pick_device(device)
    dit = torch.float32 if layout == "pocket" and dtype == "auto" else pick_dtype(dtype, where)
    if where.type == "cpu" or dit == torch.float32:
        return Precision(where, dit, dit, torch.float32)
    # The released VAE and language model run in float16, and bfloat16's 8 bits show in a decoded picture.
    return Precision(where, dit, torch.float16, torch.float16)
