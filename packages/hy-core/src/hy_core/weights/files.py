"""Weight files: what they are is told from their first bytes, and their tensors are mapped, not read.

safetensors, sharded safetensors and torch's own archives, which are opened for tensors only: a file that
would run code is refused.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hy_core.errors import HyError, MissingError

_KINDS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
#: Where several files lie in a folder, the first of these is meant.
_KNOWN = (
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
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
#: Names under which archives keep the weights of the model among other things.
_WRAPPERS = ("module", "ema", "state_dict", "model", "generator")
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Open a checkpoint file, or the one in a folder: every tensor by its name, mapped from the file.

    Nothing is read until it is used, so a checkpoint larger than the memory opens at once. Raises
    MissingError where there is none, and HyError for a file that is damaged, foreign, or holds code.
    """
    path = find(Path(path))
    if path.name.endswith(".index.json"):
        return _sharded(path)
    if _SHARD.fullmatch(path.name):
        return _shards(path)
    return _file(path)


def find(path: Path) -> Path:
    """The weight file (or index of shards) that a path means."""
    if not path.exists():
        raise MissingError(f"no weights at {path}", hint="check the path")
    if path.is_file():
        return path
    for name in _KNOWN:
        if (path / name).is_file():
            return path / name
    found = sorted(one for one in path.iterdir() if one.suffix in _KINDS and one.is_file())
    found = [one for one in found if not one.stem.endswith("_map")]  # the scales of an 8-bit file
    shards = [one for one in found if _SHARD.fullmatch(one.name)]
    if len(found) == 1 or (shards and len(shards) == len(found)):
        return found[0]
    if found:
        names = ", ".join(one.name for one in found[:3])
        raise HyError(f"{path} holds several weight files ({names})", hint="give the path of one of them")
    raise MissingError(f"{path} holds no weights", hint="expected a .safetensors or .pt file in it")


def metadata(path: Path) -> Mapping[str, str]:
    """The text that a safetensors file carries beside its tensors."""
    if not path.is_file() or _kind(path) != "safetensors":
        return {}
    with _open(path) as file:
        return file.metadata() or {}


def _file(path: Path) -> dict[str, Tensor]:
    if (kind := _kind(path)) == "safetensors":
        with _open(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    if kind == "torch":
        return _archive(path)
    raise HyError(f"{path} is {kind}", hint="expected safetensors, or an archive of torch.save")


def _kind(path: Path) -> str:
    """Tell the container by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = path.stat().st_size
    except OSError as error:
        raise HyError(f"can't read {path}: {error.strerror}") from None
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
        why = f"its header alone is {header:,} bytes" if header + 8 > size else str(error).splitlines()[0]
        raise _damaged(path, why) from None


def _damaged(path: Path, why: str) -> HyError:
    size = path.stat().st_size
    return HyError(f"{path} is damaged or cut short at {size:,} bytes ({why})", hint="copy or fetch it again")


def _archive(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in text:
            raise HyError(
                f"{path} holds Python code or objects besides tensors and isn't opened",
                hint="get the weights as safetensors, or from a source that saves tensors only",
            ) from None
        raise _damaged(path, text[:80]) from None
    return _unwrap(path, content)


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    """Get at the weights in what an archive holds: flat, or under a name of their own."""
    while isinstance(content, Mapping):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return {str(name): tensor for name, tensor in tensors.items()}
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    raise HyError(f"{path} holds no weights", hint=f"expected tensors, flat or under {', '.join(_WRAPPERS)}")


def _sharded(index: Path) -> dict[str, Tensor]:
    try:
        files = json.loads(index.read_text())["weight_map"]
        names = sorted({str(name) for name in files.values()})
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise HyError(f"{index} is no index of shards", hint="copy or fetch it again") from None
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise HyError(f"{index} points outside its folder: {name}")
        if not (index.parent / name).is_file():
            raise MissingError(
                f"{index.parent / name} is missing", hint=f"{index.name} lists {len(names)} files"
            )
        state |= _file(index.parent / name)
    if lost := sorted(set(files) - set(state)):
        raise HyError(f"{lost[0]} is in no file of {index}", hint="copy or fetch the files again")
    return state


def _shards(path: Path) -> dict[str, Tensor]:
    """All of the files `NAME-00001-of-00003.safetensors` beside one of them."""
    stem, number, count = _SHARD.fullmatch(path.name).groups()  # type: ignore[union-attr]
    names = [f"{stem}-{i:0{len(number)}}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
    state: dict[str, Tensor] = {}
    for name in names:
        if not (path.parent / name).is_file():
            raise MissingError(f"{path.parent / name} is missing", hint=f"the model is in {count} files")
        state |= _file(path.parent / name)
    return state
