"""What the tensors of a LoRA file change of one layer's weight and bias."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]


class MisfitError(Exception):
    """The tensors of a layer don't make up a change of its weight; the message says why."""


def rank_of(parts: Parts) -> int | None:
    """Return the rank of a layer's decomposition; None where it has none (a full difference, a full LoKr).

    Raises MisfitError for half of a pair and for rank 0.
    """
    for first, second in (("down", "up"), ("hada_w1_b", "hada_w1_a"), ("hada_w2_b", "hada_w2_a")):
        if (first in parts) != (second in parts):
            raise MisfitError("only half of it is there")
    if "up_bias" in parts and "up" not in parts or ("hada_w1_a" in parts) != ("hada_w2_a" in parts):
        raise MisfitError("only half of it is there")
    for half, other in (("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b")):
        if (half in parts) != (other in parts):
            raise MisfitError("only half of it is there")
    if _has_lokr(parts) and not all(f"lokr_w{i}" in parts or f"lokr_w{i}_a" in parts for i in "12"):
        raise MisfitError("only half of it is there")
    key = next((key for key in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b") if key in parts), None)
    if key is None:
        return None
    rank = len(parts[key]) if parts[key].dim() else 0
    if not rank:
        raise MisfitError("it has rank 0")
    return rank


def alpha_of(parts: Parts) -> float | None:
    """Return a layer's own alpha; None without one. Raises MisfitError if it is no single number."""
    if (tensor := parts.get("alpha")) is None:
        return None
    if tensor.numel() != 1:
        raise MisfitError(f"its alpha is {list(tensor.shape)}")
    return float(tensor)


def check(parts: Parts, rows: int, inputs: int) -> None:
    """Raise MisfitError unless the parts fit a weight of [rows, inputs], before anything is computed."""
    sizes = []
    if "down" in parts:
        up, down = _matrix(parts["up"]), _matrix(parts["down"])
        sizes.append((up.shape[0], down.shape[1]))
        if up.shape[1] != down.shape[0]:
            raise MisfitError(f"its ranks {up.shape[1]} and {down.shape[0]} differ")
    if "hada_w1_a" in parts:
        for i in "12":
            a, b = _matrix(parts[f"hada_w{i}_a"]), _matrix(parts[f"hada_w{i}_b"])
            sizes.append((a.shape[0], b.shape[1]))
            if a.shape[1] != b.shape[0]:
                raise MisfitError(f"its ranks {a.shape[1]} and {b.shape[0]} differ")
    if _has_lokr(parts):
        (r1, c1), (r2, c2) = _lokr_size(parts, "1"), _lokr_size(parts, "2")
        sizes.append((r1 * r2, c1 * c2))
    sizes += [
        (len(parts[key]), _row(parts[key])) for key in ("diff", "weight") if key in parts and parts[key].dim()
    ]
    for size in sizes:
        if size != (rows, inputs):
            raise MisfitError(f"it adds {size[0]}x{size[1]} to a layer of {rows}x{inputs}")
    if "magnitude" in parts and parts["magnitude"].numel() not in (rows, inputs):
        raise MisfitError(f"it has {parts['magnitude'].numel()} magnitudes for a layer of {rows}x{inputs}")
    for key in ("up_bias", "diff_b", "bias"):
        if key in parts and parts[key].shape != (rows,):
            raise MisfitError(f"it adds {list(parts[key].shape)} to a bias of [{rows}]")


def changed_weight(weight: Tensor, parts: Parts, factor: float, scale: float) -> Tensor:
    """Return a layer's weight [rows, inputs], float32, with the change that the parts make.

    `factor` is alpha / rank, `scale` the user's. The low-rank product of LoRA is up @ down; of LoHa (arXiv:2108.06098)
    (w1_a @ w1_b) * (w2_a @ w2_b); of LoKr (LyCORIS, arXiv:2309.14859) the Kronecker product of w1 and w2. DoRA
    (arXiv:2402.09353) rescales the changed weight to learned magnitudes, one for each row or each column; `scale` then
    blends between the layer's own weight and the rescaled one.
    """
    if (magnitude := parts.get("magnitude")) is not None:
        moved = weight + factor * _product(parts, weight)
        rows = magnitude.numel() == weight.shape[0] and magnitude.shape != (1, weight.shape[1])
        norm = moved.norm(dim=1 if rows else 0, keepdim=True)
        magnitude = magnitude.to(weight).float().reshape(norm.shape)
        moved = moved * (magnitude / norm.clamp(min=torch.finfo(torch.float32).tiny))
        change = scale * (moved - weight)
    else:
        change = (scale * factor) * _product(parts, weight)
    if "diff" in parts:
        change = change + scale * parts["diff"].to(weight).float().reshape(weight.shape)
    if "weight" in parts:
        change = change + scale * (parts["weight"].to(weight).float().reshape(weight.shape) - weight)
    changed: Tensor = weight + change
    return changed


def changed_bias(bias: Tensor, parts: Parts, factor: float, scale: float) -> Tensor:
    """Return a layer's bias [rows], float32, with the change that the parts make."""
    if "up_bias" in parts:
        bias = bias + (scale * factor) * parts["up_bias"].to(bias).float()
    if "diff_b" in parts:
        bias = bias + scale * parts["diff_b"].to(bias).float()
    if "bias" in parts:
        bias = bias + scale * (parts["bias"].to(bias).float() - bias)
    return bias


def changes_weight(parts: Parts) -> bool:
    """Return whether the parts change a layer's weight."""
    return bool(parts.keys() - {"up_bias", "diff_b", "bias", "alpha"})


def changes_bias(parts: Parts) -> bool:
    """Return whether the parts change a layer's bias."""
    return bool(parts.keys() & {"up_bias", "diff_b", "bias"})


def _product(parts: Parts, weight: Tensor) -> Tensor:
    """The low-rank product of the parts [rows, inputs], float32 on the weight's device; 0 without one."""

    def matrix(key: str) -> Tensor:
        return _matrix(parts[key]).to(weight.device).float()

    product = weight.new_zeros(())
    if "down" in parts:
        product = product + matrix("up") @ matrix("down")
    if "hada_w1_a" in parts:
        product = product + (matrix("hada_w1_a") @ matrix("hada_w1_b")) * (
            matrix("hada_w2_a") @ matrix("hada_w2_b")
        )
    if _has_lokr(parts):
        one, two = (_lokr(parts, i).to(weight.device) for i in "12")
        two = two.float()
        one = one.float().reshape(*one.shape, *[1] * (two.dim() - one.dim()))
        product = product + torch.kron(one, two).reshape(weight.shape)
    return product


def _has_lokr(parts: Parts) -> bool:
    return any(key.startswith("lokr_") for key in parts)


def _lokr(parts: Parts, i: str) -> Tensor:
    if (whole := parts.get(f"lokr_w{i}")) is not None:
        return whole
    return parts[f"lokr_w{i}_a"].float() @ _matrix(parts[f"lokr_w{i}_b"]).float()


def _lokr_size(parts: Parts, i: str) -> tuple[int, int]:
    """Rows and inputs of one factor of a Kronecker product; MisfitError if it is no matrix."""
    if (whole := parts.get(f"lokr_w{i}")) is not None:
        return len(_matrix(whole)), _row(whole)
    a, b = _matrix(parts[f"lokr_w{i}_a"]), _matrix(parts[f"lokr_w{i}_b"])
    if a.shape[1] != b.shape[0]:
        raise MisfitError(f"its ranks {a.shape[1]} and {b.shape[0]} differ")
    return a.shape[0], b.shape[1]


def _matrix(tensor: Tensor) -> Tensor:
    """A convolution's kernel as rows, as in the layer's weight."""
    if tensor.dim() < 2:
        raise MisfitError(f"it has {list(tensor.shape)} where a matrix belongs")
    return tensor.flatten(1)


def _row(tensor: Tensor) -> int:
    return tensor[0].numel() if len(tensor) else 0
