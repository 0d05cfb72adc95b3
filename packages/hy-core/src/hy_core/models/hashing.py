"""Fingerprints of weights, for provenance and to find finished clips."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.lora_option import loras
from hy_core.models.finding import find
from hy_core.models.spec import ModelSpec

if TYPE_CHECKING:
    from hy_core.conditioner import Conditioner
    from hy_core.request import Request

SAMPLED = 64
"""Blocks of 1 MiB that a fingerprint of a large file reads."""


def fingerprints(request: Request, conditioners: Sequence[Conditioner] = ()) -> dict[str, str]:
    """The fingerprints that a run of this request would record, by network and plugin; no weights are loaded."""
    spec = find(request.model, request.weights)
    found = fingerprints_of(spec, request.lora)
    for conditioner in conditioners:
        if file := conditioner.weights(spec.folder):
            found[f"plugin {conditioner.name}"] = fingerprint(Path(file))
    return found


def fingerprints_of(spec: ModelSpec, lora: str | None) -> dict[str, str]:
    """The fingerprints of a model's own weights and of the low-rank weights of `--lora`."""
    found = {"dit": fingerprint(spec.dit), "vae": fingerprint(spec.vae)}
    for path, _ in loras(lora) if lora else ():
        name, count = f"lora {path.name}", 1
        while name in found:  # files of PEFT all have one name
            count += 1
            name = f"lora {path.name} ({count})"
        found[name] = _lora_fingerprint(path)
    return found


def _lora_fingerprint(path: Path) -> str:
    """The fingerprint of a LoRA file, with that of PEFT's settings beside it, which may state its strength."""
    settings = path.parent / "adapter_config.json"
    if not path.is_file() or not settings.is_file():
        return fingerprint(path)
    return hashlib.sha256(f"{fingerprint(path)}\n{fingerprint(settings)}".encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """A hash of weights, for provenance: of a whole small file; of size and 64 evenly spaced MiB of a large one.

    A folder's is the hash of those of its weight files. Different checkpoints have different hashes; it is no
    protection against tampering. Raises OSError if there is no such file.
    """
    if path.is_dir():
        names = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".bin", ".pth"))
        return hashlib.sha256("".join(f"{p.name}:{fingerprint(p)}\n" for p in names).encode()).hexdigest()
    about = path.stat()
    return _fingerprint(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)
def _fingerprint(path: Path, size: int, changed: int) -> str:
    """The hash of one file, cached until its size or modification time changes."""
    block = 1 << 20
    digest = hashlib.sha256(f"{size}:".encode() if size > SAMPLED * block else b"")
    with path.open("rb") as file:
        if size <= SAMPLED * block:
            while part := file.read(block):
                digest.update(part)
        else:
            for index in range(SAMPLED):
                file.seek(index * (size - block) // (SAMPLED - 1))
                digest.update(file.read(block))
    return digest.hexdigest()
