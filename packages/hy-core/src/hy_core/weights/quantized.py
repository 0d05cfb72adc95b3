"""Weights stored as 8-bit numbers with scales: find the scales, multiply, and refuse what isn't supported by its name.

They save disk and download, not arithmetic: a weight is its stored numbers times their scale, put together tensor by
tensor in the dtype that the model runs in. Supported:

- the official float8 files with a map of scales beside them (core facts 2.14);
- float8 with scales in the file: `scale_weight` (ComfyUI), `weight_scale` (ModelOpt, compressed-tensors), per tensor,
  per row or per block, and `weight_scale_inv` (blocks of 128 x 128, which is multiplied too despite its name);
- int8 with `weight_scale` or with bitsandbytes' `SCB` (a row's largest magnitude, which 127 stands for);
- weights that were merely cast to float8, which have no scales.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hy_core.errors import HyError, MissingError
from hy_core.weights.keys import Source

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_EIGHT_BITS = (*FLOAT8, torch.int8)
_SCALES = ("scale_weight", "weight_scale", "weight_scale_inv", "SCB")
#: What such files hold beside weights and scales: scales of activations, and marks of the format.
_COMPANIONS = (*_SCALES, "scale_input", "input_scale", "weight_format", "comfy_quant")
_BLOCK = 128
#: Formats by what only their keys have.
_UNSUPPORTED = (
    (".quant_state.bitsandbytes__nf4", "4-bit weights of bitsandbytes (NF4)"),
    (".quant_state.bitsandbytes__fp4", "4-bit weights of bitsandbytes (FP4)"),
    (".absmax", "4-bit weights of bitsandbytes"),
    (".quant_map", "4-bit weights of bitsandbytes"),
    (".qzeros", "4-bit weights of GPTQ or AWQ"),
    (".wscales", "4-bit weights of SVDQuant (Nunchaku)"),
    (".qweight", "integer weights of GPTQ, AWQ or SVDQuant"),
    (".weight_packed", "packed weights of compressed-tensors"),
    (".weight_scale_2", "4-bit floats of ModelOpt (NVFP4)"),
    (".weight._data", "weights of quanto"),
    (".weight_qtype", "weights of quanto"),
    (":qdata", "weights of torchao"),
    ("_weight_qdata", "weights of torchao"),
)
_HINT = "use the bfloat16 file, or an 8-bit file with its scales"


@dataclass(frozen=True)
class Scaled(Source):
    """A parameter whose stored parts are multiplied by scales; `scales` are one for each of `keys`, or None.

    `rounded` multiplies in bfloat16 as the official code does; otherwise the product is float32.
    """

    scales: tuple[Tensor | None, ...] = ()
    rounded: bool = False

    def dtype(self, dtypes: list[torch.dtype]) -> torch.dtype:
        """Return the dtype that `build` gives for parts of these dtypes."""
        kind = torch.bfloat16 if self.rounded else torch.float32
        pairs = zip(dtypes, self.scales, strict=True)
        return Source(self.keys).dtype(
            [kind if scale is not None or one in FLOAT8 else one for one, scale in pairs]
        )

    def build(self, parts: list[Tensor]) -> Tensor:
        """Join the parts [rows_i, ...], each multiplied by its scale if it has one."""
        kind = torch.bfloat16 if self.rounded else torch.float32
        built = []
        for part, scale in zip(parts, self.scales, strict=True):
            part = part.to(kind) if scale is not None or part.dtype in FLOAT8 else part
            built.append(part if scale is None else part * _expand(scale, part.shape, kind))
        return Source(self.keys, self.swap).build(built)


def refuse_unsupported(state: Mapping[str, Tensor], what: object) -> None:
    """Raise HyError, naming the format, for quantised weights that aren't supported. `what` names the weights.

    Tensors of any shape by their names.
    """
    for mark, name in _UNSUPPORTED:
        if found := next((key for key in state if mark in key), None):
            raise HyError(f"{what} holds {name} ({found[:100]}), which aren't supported", _HINT)
    for key, tensor in state.items():
        if key.endswith(".comfy_quant") and (kind := _comfy_format(tensor)) not in _COMFY:
            raise HyError(
                f"{what} holds weights in ComfyUI's format {kind!r} ({key[:100]}), which aren't supported",
                _HINT,
            )
        if key.endswith(".weight") and tensor.dim() > 1 and tensor.dtype not in _EIGHT_BITS:
            kind = str(tensor.dtype).removeprefix("torch.")
            if "float4" in kind or tensor.dtype is torch.uint8:
                raise HyError(
                    f"{what} holds 4-bit weights ({key[:100]} is {kind}), which aren't supported", _HINT
                )
            if not tensor.is_floating_point():
                raise HyError(
                    f"{what} holds integer weights ({key[:100]} is {kind}), which aren't supported", _HINT
                )


_COMFY = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "int8_rowwise")


def _comfy_format(tensor: Tensor) -> str:
    """The format that a `comfy_quant` tensor names: JSON in bytes."""
    if tensor.dtype is torch.uint8 and tensor.numel() < 4096:
        try:
            found = json.loads(bytes(tensor.flatten().tolist()))
            return str(found.get("format"))[:60]
        except (ValueError, AttributeError, RecursionError):
            pass
    return "unreadable"


def map_of(file: Path) -> Path:
    """Where the official code has the scales of a file: beside it, as `NAME_map.pt`."""
    return file.with_name(f"{file.stem}_map{file.suffix}")


def with_scales(
    file: Path, state: Mapping[str, Tensor], source: Callable[[str], Source | None]
) -> tuple[dict[str, Tensor], Callable[[str], Source | None]]:
    """Return the state without its scales, and a `source` that multiplies each 8-bit tensor by its own.

    Raises MissingError if scales are needed and missing: 8-bit floats that reach the largest number of their format
    were scaled to it, and int8 always is. Raises HyError for scales that don't fit.

    Tensors of any shape by their names.
    """
    rest = {key: tensor for key, tensor in state.items() if key.rpartition(".")[2] not in _COMPANIONS}
    eight = {key: tensor for key, tensor in rest.items() if tensor.dtype in _EIGHT_BITS}
    if not eight:
        return dict(state), source
    mapped = _official_scales(file, eight)
    scales = {
        key: mapped[key] if mapped is not None else _scale_inside(file, state, key, tensor)
        for key, tensor in eight.items()
    }

    def scaled(key: str) -> Source | None:
        found = source(key)
        if found is None or not any(part in eight for part in found.keys):
            return found
        return Scaled(
            found.keys, found.swap, tuple(scales.get(part) for part in found.keys), rounded=mapped is not None
        )

    return rest, scaled


def _official_scales(file: Path, eight: Iterable[str]) -> dict[str, Tensor] | None:
    """The scales of the map beside a file; None if it has no map."""
    from hy_core.weights.files import load_state

    path = map_of(file)
    if not path.is_file():
        return None
    held, found = load_state(path), {}
    for key in eight:
        scale = held.get(key.removesuffix(".weight"), held.get(key))
        if scale is None or scale.numel() != 1:
            raise HyError(f"{path} has no scale for {key}", "copy or fetch both files again")
        found[key] = _checked(scale, torch.Size(), f"{path}: the scale of {key}")
    return found


def _scale_inside(file: Path, state: Mapping[str, Tensor], key: str, tensor: Tensor) -> Tensor | None:
    """The scale that a file holds for one of its tensors; None for a tensor that was merely cast."""
    layer = key.removesuffix(".weight")
    for name in _SCALES:
        if (scale := state.get(f"{layer}.{name}")) is not None:
            scale = scale / 127 if name == "SCB" and scale.is_floating_point() else scale
            return _checked(scale, tensor.shape, f"{file}: {layer}.{name}")
    if tensor.dtype in FLOAT8:
        if not bool((tensor.float().abs() == torch.finfo(tensor.dtype).max).any()):
            return None
    kind = "8-bit floats" if tensor.dtype in FLOAT8 else "8-bit integers"
    raise MissingError(
        f"{file} holds {kind}, which mean nothing without their scales: there is no {layer}.scale_weight in it "
        f"and no {map_of(file).name} beside it",
        "fetch the scales too, or use the bfloat16 file",
    )


def _checked(scale: Tensor, shape: torch.Size, where: str) -> Tensor:
    """A scale as float32, of a shape that `_expand` fits to `shape`."""
    if not scale.is_floating_point() or scale.dtype in FLOAT8 or "float8" in str(scale.dtype):
        kind = str(scale.dtype).removeprefix("torch.")
        raise HyError(f"{where} is {kind}: block-scaled weights (MX formats) aren't supported", _HINT)
    scale = scale.float()
    if not bool(scale.isfinite().all()):
        raise HyError(f"{where} isn't a number", "the file was saved broken")
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.shape == shape[:1]:
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    if scale.dim() == len(shape) == 2 and all(map(_block, shape, scale.shape)):
        return scale
    raise HyError(f"{where} is {list(scale.shape)}, which doesn't fit weights of {list(shape)}", _HINT)


def _block(size: int, scales: int) -> int:
    """How many rows or columns share one of `scales` scales; 0 if that is ambiguous."""
    if scales and scales == -(-size // _BLOCK):
        return _BLOCK
    return size // scales if scales and size % scales == 0 else 0


def _expand(scale: Tensor, shape: torch.Size, kind: torch.dtype) -> Tensor:
    """A scale as `_checked` returns it, repeated so that it multiplies weights of `shape`."""
    scale = scale.to(kind)
    for axis in range(scale.dim() if scale.dim() == 2 else 0):
        if scale.shape[axis] > 1 and (block := _block(shape[axis], scale.shape[axis])) > 1:
            scale = scale.repeat_interleave(block, axis).narrow(axis, 0, shape[axis])
    return scale
