"""Open weight files: the container is detected from the first bytes, and tensors are mapped, not read.

safetensors, archives of `torch.save`, and either in shards with or without an index. Files are untrusted: nothing in
them is run, and a damaged one is one line.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hy_core.errors import HyError, MissingError
from hy_core.weights.archive import ArchiveError, TensorRecord, UnsafeArchiveError, open_archive
from hy_core.weights.wrappers import WRAPPERS, unwrap, without_segments

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
#: Where a folder holds several files, the first of these that is there is opened.
_PREFERRED = (
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.bin.index.json",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "dit.safetensors",
    "vae.safetensors",
    "mp_rank_00_model_states.pt",
    "pytorch_model_module.pt",
    "pytorch_model_ema.pt",
    "pytorch_model.pt",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
_SHARD = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,12})(\.(?:safetensors|bin|pt|pth))")
_INDEX_BYTES = 64 << 20


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file or of several shards by name, and the text that the file carries beside them."""

    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def load_state(path: str | Path, *, verify: bool = True) -> dict[str, Tensor]:
    """Open a checkpoint file, or the one in a folder: every tensor by its name, mapped from the file.

    Values are read when they are used, so a checkpoint larger than the memory opens at once; only the checksums of a
    `torch.save` archive take one pass over it, unless `verify` is false. What torch.compile and FSDP insert into
    names is removed. Raises MissingError where there is no file, and HyError for one that is damaged, foreign, holds
    complex numbers, or holds Python objects.

    Tensors of any shape by their names.
    """
    return open_checkpoint(path, verify=verify).tensors


def open_checkpoint(path: str | Path, *, verify: bool = True) -> Checkpoint:
    """Open a checkpoint as `load_state` does, with the text beside its tensors."""
    path = find(Path(path))
    if path.name.endswith(".index.json"):
        found = _by_index(path, verify)
    elif _SHARD.fullmatch(path.name):
        found = _by_number(path, verify)
    else:
        found = _file(path, verify)
    for name, tensor in found.tensors.items():
        if tensor.is_complex():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise HyError(f"{path}: {name[:100]} is {kind}", "weights are real numbers")
    return Checkpoint(without_segments(found.tensors, path), found.metadata)


def find(path: Path) -> Path:
    """Return the weight file, or the index of shards, that a file's or folder's path means.

    Raises MissingError where there is none, HyError where a folder holds several.
    """
    try:
        if not path.exists():
            raise MissingError(f"no weights at {path}", hint="check the path")
        if not path.is_dir():
            return path
        for name in _PREFERRED:
            if (path / name).is_file():
                return path / name
        found = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES and one.is_file())
    except (OSError, ValueError) as error:
        raise HyError(f"can't read {str(path)!r}: {error}") from None
    found = [one for one in found if not one.stem.endswith("_map")]  # the scales of an official 8-bit file
    shards = [one for one in found if _SHARD.fullmatch(one.name)]
    if len(found) == 1 or (shards and len(shards) == len(found)):
        return found[0]
    if found:
        names = ", ".join(one.name for one in found[:3])
        raise HyError(f"{path} holds several weight files ({names})", hint="give the path of one of them")
    raise MissingError(f"{path} holds no weights", hint="expected a .safetensors or .pt file in it")


def metadata(path: Path) -> Mapping[str, str]:
    """Return the text that a weight file carries beside its tensors; {} for an index or a missing file.

    Of safetensors it is the header's metadata, of a `torch.save` archive the plain values beside the tensors.
    """
    if not path.is_file() or path.name.endswith(".index.json"):
        return {}
    if _kind(path) == "safetensors":
        with _open(path) as file:
            return file.metadata() or {}
    return _archive(path, verify=False).metadata


def _file(path: Path, verify: bool) -> Checkpoint:
    if (kind := _kind(path)) == "safetensors":
        with _open(path) as file:
            try:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            except Exception as error:  # an unknown dtype, a shape too large for torch: the classes vary
                raise _damaged(path, str(error)) from None
            return Checkpoint(tensors, file.metadata() or {})
    if kind == "torch":
        return _archive(path, verify)
    raise HyError(f"{path} is {kind}", hint="expected safetensors, or an archive of torch.save")


def _kind(path: Path) -> str:
    """Detect the container from the first bytes."""
    try:
        if not path.is_file():
            return "not a regular file"
        with path.open("rb") as file:
            head = file.read(16)
            size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise HyError(f"can't read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    if not head:
        return "an empty file"
    if head.startswith(b"GGUF"):
        return "a GGUF file, which isn't supported yet"
    if head.startswith(b"version https://"):
        return "a Git LFS pointer and not the file itself"
    torch_like = head.startswith(b"PK") or head[:1] == b"\x80"
    # safetensors begins with the length of its header, whose bytes may happen to be torch's first ones.
    if head[8:9] == b"{" and (not torch_like or int.from_bytes(head[:8], "little") <= size - 8):
        return "safetensors"
    if torch_like:
        return "torch"
    return "not a weight file that hy knows"


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        why = f"its header alone is {header:,} bytes" if header + 8 > size else str(error)
        raise _damaged(path, why) from None


def _damaged(path: Path, why: str) -> HyError:
    size, why = path.stat().st_size, " ".join(why.split())[:120]
    return HyError(f"{path} is damaged or cut short at {size:,} bytes ({why})", hint="copy or fetch it again")


def _archive(path: Path, verify: bool) -> Checkpoint:
    try:
        archive = open_archive(path)
        found = unwrap(archive.content, lambda one: isinstance(one, TensorRecord))
        if found is None:
            raise HyError(
                f"{path} holds no weights", hint=f"expected tensors, flat or under {', '.join(WRAPPERS)}"
            )
        records, notes = found
        tensors = {name: archive.tensor(record) for name, record in records.items()}
        if verify:
            archive.verify(records.values())
    except UnsafeArchiveError as error:
        raise HyError(
            f"{path} holds Python code or objects besides tensors ({error}) and isn't opened",
            hint="get the weights as safetensors, or from a source that saves tensors only",
        ) from None
    except (ArchiveError, OSError, RuntimeError) as error:
        raise _damaged(path, str(error)) from None
    return Checkpoint(tensors, notes)


def _by_index(index: Path, verify: bool) -> Checkpoint:
    """The shards that an index lists: each tensor from the file that the index names for it."""
    try:
        if index.stat().st_size > _INDEX_BYTES:
            raise ValueError
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        wanted: dict[str, list[str]] = {}
        for tensor, name in files.items():
            wanted.setdefault(str(name), []).append(tensor)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        raise HyError(f"{index} is no index of shards", hint="copy or fetch it again") from None
    tensors: dict[str, Tensor] = {}
    for name in sorted(wanted):
        if Path(name).name != name or "\0" in name:
            raise HyError(f"{index} points outside its folder: {name[:100]!r}")
        if not _is_file(index.parent / name):
            raise MissingError(
                f"{index.parent / name[:255]} is missing", hint=f"{index.name} lists {len(wanted)} files"
            )
        held = _file(index.parent / name, verify).tensors
        if lost := [tensor for tensor in wanted[name] if tensor not in held]:
            raise HyError(
                f"{lost[0][:100]} isn't in {index.parent / name}, where {index.name} has it",
                hint="copy or fetch the files again",
            )
        tensors |= {tensor: held[tensor] for tensor in wanted[name]}
    return Checkpoint(tensors)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long
        return False


def _by_number(path: Path, verify: bool) -> Checkpoint:
    """All of the files `NAME-00001-of-00003.safetensors` beside one of them."""
    match = _SHARD.fullmatch(path.name)
    assert match is not None
    stem, number, count, suffix = match.groups()
    tensors: dict[str, Tensor] = {}
    first = 0 if (path.parent / f"{stem}-{0:0{len(number)}}-of-{count}{suffix}").is_file() else 1
    for index in range(first, int(count) + first):
        shard = path.parent / f"{stem}-{index:0{len(number)}}-of-{count}{suffix}"
        if not shard.is_file():
            raise MissingError(f"{shard} is missing", hint=f"the model is in {count} files")
        held = _file(shard, verify).tensors
        if double := sorted(held.keys() & tensors.keys()):
            raise HyError(f"{double[0][:100]} is in two of the {count} files of {stem}", "fetch them again")
        tensors |= held
    return Checkpoint(tensors)
