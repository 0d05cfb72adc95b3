"""Optimisers: Muon for weight matrices and convolutions beside AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from hy_core.dit.layers import CPU_HAS_BF16
from hy_core.errors import UsageError
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from hy_train.recipe import Optim

# The quintic whose iteration drives singular values towards 1 (Jordan et al. 2024, "Muon").
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(update: Tensor, iterations: int = 5) -> Tensor:
    """Return the nearest semi-orthogonal matrix, roughly: singular values land in about 0.7..1.2. [rows, columns]."""
    a, b, c = _QUINTIC
    wide = update.shape[0] <= update.shape[1]
    x = update if wide else update.T
    x = (x / (x.norm() + 1e-7)).to(_precision(x.device))
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).to(update.dtype)


def _precision(device: torch.device) -> torch.dtype:
    """What the iteration is computed in: it needs no more than bfloat16, where that is fast."""
    fast = CPU_HAS_BF16 if device.type == "cpu" else device.type == "cuda"
    return torch.bfloat16 if fast else torch.float32


# Parts of a DiT that work on vectors rather than tokens, by their names in it.
_VECTORS = ("_mod.linear", "modulation", "time_in", "vector_in", "guidance_in", "t_embedder", "c_embedder")


class MuonAdamW(torch.optim.Optimizer):
    """Muon on parameters of groups with `muon=True`, AdamW on the others.

    Muon: momentum with Nesterov's look-ahead, the update orthogonalised and scaled by 0.2 * sqrt(max(rows, columns)),
    which gives it the size of an AdamW update, so that one weight decay serves both (HunyuanVideo-1.5's trainer does
    the same). Convolutions are flattened to [out, in * kernel].
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            for weight in group["params"]:
                if weight.grad is not None:
                    update(weight, weight.grad, self.state[weight], group)
        return loss

    @staticmethod
    def _muon(weight: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        average = state["momentum"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(average, group["momentum"]).flatten(1)
        update = orthogonalise(ahead) * 0.2 * math.sqrt(max(ahead.shape))
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(weight), alpha=-group["lr"])

    @staticmethod
    def _adamw(weight: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        (beta1, beta2), step = group["betas"], state["step"]
        mean, square = state["mean"].lerp_(grad, 1 - beta1), state["square"].lerp_(grad.square(), 1 - beta2)
        size = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(mean, size, value=-group["lr"] / (1 - beta1**step))


def build(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe for the trainable parameters of a model.

    Norms, biases and embeddings take no weight decay. Muon takes the weights of two and more dimensions but embeddings
    and modulations: these see a row or a frame at a time, not a token, and would cost more to orthogonalise than they
    cost to run.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    muon, adamw, plain = [], [], []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        if weight.ndim < 2 or id(weight) in embeddings:
            plain.append(weight)
        elif optim.name == "muon" and not any(part in name for part in _VECTORS):
            muon.append(weight)
        else:
            adamw.append(weight)
    shared = {"muon": False, "lr": optim.lr, "betas": tuple(optim.betas), "eps": optim.eps}
    if optim.name not in ("muon", "adamw"):
        raise UsageError(f"optim.name = {optim.name!r}: unknown", "use muon or adamw")
    groups = [
        {"params": muon, "muon": True, "lr": optim.muon_lr, "weight_decay": optim.weight_decay},
        {"params": adamw, "weight_decay": optim.weight_decay, **shared},
        {"params": plain, "weight_decay": 0.0, **shared},
    ]
    return MuonAdamW([group for group in groups if group["params"]])


def rate(optim: Optim, steps: int, step: int) -> float:
    """Return the share of the learning rate at a step: warm-up, then the decay to `min_lr_ratio` at the last step."""
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    part = min((step - optim.warmup) / max(steps - optim.warmup, 1), 1.0)
    if optim.decay == "cosine":
        return optim.min_lr_ratio + (1 - optim.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * part))
    if optim.decay == "linear":
        return optim.min_lr_ratio + (1 - optim.min_lr_ratio) * (1 - part)
    if optim.decay == "constant":
        return 1.0
    raise UsageError(f"optim.decay = {optim.decay!r}: unknown", "use cosine, linear or constant")


def restate(optimizer: torch.optim.Optimizer, schedule: LambdaLR, fresh: torch.optim.Optimizer) -> None:
    """Give an optimiser that was read from a checkpoint the settings of a new one, at the step of its schedule."""
    for group, new, rate in zip(optimizer.param_groups, fresh.param_groups, schedule.lr_lambdas, strict=True):
        group.update({key: value for key, value in new.items() if key != "params"})
        group["initial_lr"] = new["lr"]
        group["lr"] = new["lr"] * rate(schedule.last_epoch)
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
