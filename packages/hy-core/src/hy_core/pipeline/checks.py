"""Errors of a run in one line: NaN and infinity, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hy_core.errors import HyError, MemoryLimitError
from hy_core.request import Request


def finite(x: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity. The tensor has any shape."""
    return bool(torch.isfinite(x).all())


def not_a_number(network: nn.Module, where: str) -> HyError:
    """The error for NaN or infinity, with the likely cause: damaged weights, float16, or guidance."""
    kind = type(network).__name__
    for name, parameter in network.named_parameters():
        if not finite(parameter):
            return HyError(
                f"the {kind}'s weights hold NaN or infinity ({name})",
                "the file is damaged: copy or fetch it again",
            )
    if next(network.parameters()).dtype == torch.float16:
        return HyError(
            f"{kind}: {where} gives NaN: its numbers don't fit into float16", "use --dtype bf16 or fp32"
        )
    return HyError(
        f"{kind}: {where} gives NaN or infinity", "use a lower --cfg or --guidance, or --dtype fp32"
    )


@contextmanager
def translate_oom(requests: Callable[[], Sequence[Request]], stage: Callable[[], str]) -> Iterator[None]:
    """Raise MemoryLimitError for out-of-memory errors of torch and numpy.

    `requests()` are those not finished yet, `stage()` the stage of the run when it happened.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and "allocate memory" not in text and "not enough memory" not in text:
            raise
        largest = max(requests(), key=lambda r: r.width * r.height * r.frames)
        size = f"{largest.frames} frames of {largest.width}x{largest.height}"
        smaller = "try fewer --frames, a smaller --size, or --dtype bf16"
        raise MemoryLimitError(
            f"not enough memory for {size} (step: {stage()})",
            "try --tiling official" if stage() == "decode" else smaller,
        ) from error
