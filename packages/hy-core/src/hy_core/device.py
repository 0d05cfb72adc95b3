"""Which device and number format a run takes, and how much memory is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import UsageError

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. UsageError if it isn't there."""
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in has.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: no such kind of device", "cpu, cuda, cuda:1 or mps") from None
    if not has.get(device.type, False):
        raise UsageError(f"--device {name}: not available here", "hy doctor tells what is")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of that name; "auto" is bf16 on a GPU and fp32 on a CPU, where both are fast."""
    import torch

    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: must be auto, {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, DTYPES[name])
    return found


def free_memory(device: torch.device) -> int:
    """Bytes that a run could take on the device now."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return free_ram()


def free_ram() -> int:
    """Bytes of main memory that a process could still take, seen from inside a container too."""
    amounts = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            amounts.append(int(line.split()[1]) * 1024)
    limit, used = lines("/sys/fs/cgroup/memory.max"), lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        # Cached file pages count as used there but are given back on demand.
        cached = sum(
            int(line.split()[1]) for line in lines("/sys/fs/cgroup/memory.stat") if line[:5] == "file "
        )
        amounts.append(int(limit[0]) - int(used[0]) + cached)
    return max(min(amounts), 0)


def lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def describe(device: torch.device) -> str:
    """The device in words: `cuda:0 (NVIDIA H100, 79 GB free)`."""
    import torch

    free = f"{free_memory(device) / 1e9:.1f} GB free"
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, {free})"
    return (
        f"{device} ({torch.get_num_threads()} threads, {free})"
        if device.type == "cpu"
        else f"{device} ({free})"
    )
