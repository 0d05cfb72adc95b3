"""Convert checkpoints of the DiT and the VAE between formats and dtypes, one tensor in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hy_core.dit.config import DiTConfig
from hy_core.dit.model import DiT
from hy_core.errors import UsageError
from hy_core.files import atomic, storage_errors, write_text
from hy_core.weights.detect import detect
from hy_core.weights.files import find, load_state
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL, Table
from hy_core.weights.load import read_dit_config
from hy_core.weights.quantized import map_of, refuse_unsupported, with_scales
from hy_core.weights.streaming import Entry, write_safetensors
from hy_core.weights.strict import plan_of

FORMATS: Mapping[str, Table] = {"official": OFFICIAL, "diffusers": DIFFUSERS, "comfyui": COMFYUI}
"""Formats of a DiT that can be written, by name; ours has the official names."""
DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}
DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"
_FP8_MAX = 448.0  # largest number of float8_e4m3fn; the official scale is the largest magnitude divided by it


@dataclass(frozen=True)
class Converted:
    """What was written: the weights, and the files beside them (a config.json, scales of 8-bit weights)."""

    weights: Path
    beside: tuple[Path, ...]
    tensors: int
    parameters: int


def convert_dit(
    source: str | Path, target: str | Path, to: str = "official", dtype: str | None = None, prefix: str = ""
) -> Converted:
    """Convert a DiT's checkpoint, file or folder in any format that `load_dit` reads, to the format `to`.

    "diffusers" makes `target` a folder with config.json, the others a safetensors file, or, for the official code, a
    .pt archive, which needs memory for one copy. `prefix` is put before all names of a file, such as "model.model." for
    ComfyUI. `dtype` None keeps each tensor's; "fp8" stores the weights of the blocks' linear layers as float8_e4m3fn,
    with their scales in a file `NAME_map` beside the weights, as the official code has them. Without a change of dtype
    every value is kept bit for bit, and converting back restores it.

    Raises UsageError for an unknown format or dtype, HyError for a checkpoint that isn't a DiT or doesn't fit.
    """
    if to not in FORMATS:
        raise UsageError(f"no checkpoint format {to!r}", f"one of {', '.join(FORMATS)}")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}", f"one of {', '.join(DTYPES)}")
    if to == "diffusers" and dtype == "fp8":
        raise UsageError("diffusers has no 8-bit files of its own", "--to official or comfyui")
    reader = _Reader(Path(source))
    table, kind = FORMATS[to], DTYPES.get(dtype or "")
    width = reader.config.width
    announced = {key: tensor.to(_kind(key, tensor.dtype, kind)) for key, tensor in reader.shapes().items()}
    entries = [
        Entry(prefix + name, part.dtype, tuple(part.shape)) for name, part in table.export(announced, width)
    ]
    scales: dict[str, Tensor] = {}

    def values() -> Iterator[tuple[str, Tensor]]:
        for key, tensor in reader.tensors():
            cast = _cast(key, tensor, kind, scales)
            for name, part in table.export({key: cast}, width):
                yield prefix + name, part

    target = Path(target)
    weights = target / DIFFUSERS_FILE if to == "diffusers" else target
    _check_suffix(weights, to)
    weights.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"} if to == "diffusers" else {"config": json.dumps(reader.config.to_json())}
    _write(weights, entries, values(), metadata)
    beside = []
    if to == "diffusers":
        beside.append(target / "config.json")
        write_text(beside[0], json.dumps(reader.config.to_diffusers(), indent=2) + "\n")
    if scales:
        beside.append(map_of(weights))
        names = {
            prefix + name.removesuffix(".weight"): scales[key]
            for key in scales
            if (place := table.source(key))
            for name in place.keys
        }
        _write(beside[-1], [Entry(name, one.dtype, ()) for name, one in names.items()], names.items(), {})
    count = sum(torch.Size(entry.shape).numel() for entry in entries)
    return Converted(weights, tuple(beside), len(entries), count)


def _check_suffix(weights: Path, to: str) -> None:
    if weights.suffix == ".safetensors" or (weights.suffix == ".pt" and to == "official"):
        return
    kinds = ".safetensors, or .pt for the official code" if to == "official" else ".safetensors"
    raise UsageError(
        f"-o {weights}: a file in the {to} format ends in {kinds}", f"-o {weights.stem}.safetensors"
    )


def _write(
    path: Path, entries: list[Entry], tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]
) -> None:
    """Write (name, values of any shape) as the suffix says; a .pt archive holds all values in memory at once."""
    if path.suffix == ".safetensors":
        write_safetensors(path, entries, tensors, metadata)
        return
    state = {name: tensor.clone() for name, tensor in tensors}
    with atomic(path) as temporary, storage_errors(path):
        torch.save(state if path.stem.endswith("_map") else {"module": state}, temporary)


class _Reader:
    """A DiT's checkpoint under our names: shapes at once, values one by one."""

    def __init__(self, path: Path) -> None:
        self.path = next(
            (path / name for name in ("transformer", "transformers") if (path / name).is_dir()), path
        )
        state = load_state(self.path)
        refuse_unsupported(state, self.path)
        form = detect(state)
        self.config: DiTConfig = read_dit_config(self.path)
        self.what = f"the DiT weights of {self.path}"
        self.state, source = with_scales(find(self.path), form.strip(state), form.table.source)
        with torch.device("meta"):
            wanted = DiT(self.config).state_dict()
        self.plan = plan_of(wanted, self.state, source, self.what)

    def shapes(self) -> dict[str, Tensor]:
        """Our parameters on the meta device, with the dtypes that `tensors` yields."""
        found = {}
        for key, source in self.plan.items():
            parts = [self.state[part] for part in source.keys]
            kind = source.dtype([part.dtype for part in parts])
            found[key] = torch.empty(
                source.shape([tuple(part.shape) for part in parts]), dtype=kind, device="meta"
            )
        return found

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, values) of each parameter, of any shape, and forget its parts."""
        for key, source in self.plan.items():
            yield key, source.build([self.state.pop(part) for part in source.keys])


def _kind(key: str, old: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """The dtype that a parameter is written in."""
    if wanted is None or not old.is_floating_point:
        return old
    if wanted is torch.float8_e4m3fn and not _is_quantized(key):
        return torch.bfloat16
    return wanted


def _is_quantized(key: str) -> bool:
    """Whether the official fp8 checkpoint holds this parameter in 8 bits: weights of linear layers of the blocks."""
    return key.endswith(".weight") and "_blocks." in key and "norm" not in key


def _cast(key: str, tensor: Tensor, wanted: torch.dtype | None, scales: dict[str, Tensor]) -> Tensor:
    """A parameter [...] in its new dtype; the scale of an 8-bit one goes into `scales`."""
    kind = _kind(key, tensor.dtype, wanted)
    if kind is not torch.float8_e4m3fn or tensor.dtype is kind:
        return tensor.to(kind)
    values = tensor.float()
    scale = values.abs().max().clamp(min=torch.finfo(torch.float32).tiny) / _FP8_MAX
    scales[key] = scale
    return (values / scale).clamp(-_FP8_MAX, _FP8_MAX).to(kind)
