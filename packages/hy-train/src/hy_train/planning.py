"""What a run needs before it starts: memory, operations and time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from hy_core.device import free_memory, pick_device
from hy_core.dit import DiTConfig
from hy_core.errors import MemoryLimitError
from hy_core.estimate import duration, scaled
from hy_core.estimate.measure import block_seconds
from hy_core.training import Objective
from torch import nn

from hy_train import optim
from hy_train.recipe import Recipe

# Numbers that the backward pass needs of a block for each token and channel, counted on the network (a test does it
# again), and those of the layers around the blocks.
KEPT_DOUBLE, KEPT_SINGLE, KEPT_AROUND = 25.2, 22.2, 5.0
_MIXED = 0.6  # of that in bf16-mixed: most are half as large, norms and sums are not


@dataclass(frozen=True)
class BucketPlan:
    """A bucket: its shape in pixels, a process' rows, tokens and operations of a row, its share of the steps."""

    shape: str
    rows: int
    tokens: int
    flops: float
    share: float


@dataclass(frozen=True)
class Plan:
    """The cost of a run, in each process: bytes by purpose, operations, and seconds on this machine (None: unknown)."""

    parameters: int
    trained: int
    bytes: dict[str, int]
    buckets: tuple[BucketPlan, ...] = ()
    flops: float = 0.0
    seconds: float | None = None

    @property
    def peak_bytes(self) -> int:
        """The memory that the run takes."""
        return sum(self.bytes.values())

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**asdict(self), "peak_bytes": self.peak_bytes}

    def lines(self) -> dict[str, Any]:
        """The plan as a table of readable values."""
        found: dict[str, Any] = {
            "parameters": self.parameters,
            "trained": self.trained,
            "memory": f"about {scaled(self.peak_bytes)}B ("
            + ", ".join(f"{name} {scaled(size)}B" for name, size in self.bytes.items())
            + ")",
        }
        for one in self.buckets:
            found[f"bucket {one.shape}"] = (
                f"{one.rows} clips of {one.tokens:,} tokens, {scaled(one.rows * one.flops)}FLOP a step, "
                f"{100 * one.share:.0f}% of the steps"
            )
        if self.flops:
            found["operations"] = f"{scaled(self.flops)}FLOP"
        if self.seconds is not None:
            found["time"] = f"about {duration(self.seconds)} on this machine"
        return found


def plan(recipe: Recipe, objective: Objective[Any], timed: bool = True) -> Plan:
    """Return the plan of a run; nothing is loaded or encoded.

    If `timed`, time is that of forward and backward passes, from a measurement of one block of the network.
    """
    model = objective.model
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    parameters = sum(one.numel() for one in model.parameters())
    size = 2 if recipe.precision.endswith("-true") and "16" in recipe.precision else 4
    sizes = {
        "weights": size * parameters,
        "gradients": size * trained,
        "optimiser": size * _moments(model, recipe),
        "average": size * parameters if recipe.ema else 0,
    }
    describe = getattr(objective, "describe_buckets", None)
    if describe is None:
        return Plan(parameters, trained, sizes)
    config, buckets = describe()
    sizes["activations"] = max(
        activation_bytes(config, one.rows * one.tokens, recipe.precision, objective.model) for one in buckets
    )
    passes = recipe.accumulate * recipe.steps
    flops = passes * sum(one.share * one.rows * one.flops for one in buckets)
    seconds = _seconds(recipe, config, buckets, passes) if timed else None
    return Plan(parameters, trained, sizes, tuple(buckets), flops, seconds)


def activation_bytes(config: DiTConfig, tokens: int, precision: str, model: nn.Module) -> int:
    """Return the bytes that the backward pass of a DiT needs of the forward pass on so many tokens."""
    kept = config.depth_double * KEPT_DOUBLE + config.depth_single * KEPT_SINGLE + KEPT_AROUND
    if getattr(model, "checkpointing", False):  # the inputs of all blocks, and one block
        kept = config.depth_double + config.depth_single + KEPT_DOUBLE + KEPT_AROUND
    return round(4 * tokens * config.width * kept * (1.0 if precision.startswith("32") else _MIXED))


def check_plan(found: Plan) -> None:
    """Raise `MemoryLimitError` for a plan that clearly doesn't fit (it is an estimate)."""
    free = free_memory(pick_device())
    if found.peak_bytes > 1.5 * free:
        largest = max(found.buckets, key=lambda one: one.rows * one.tokens, default=None)
        what = ""
        if largest:
            activations = f"{scaled(found.bytes['activations'])}B"
            what = f", {activations} of it for {largest.rows} clips of {largest.shape}"
        raise MemoryLimitError(
            f"the run needs about {scaled(found.peak_bytes)}B{what}, and {scaled(free)}B are free",
            "lower the bucket's batch, or batch with accumulate",
        )


def _moments(model: nn.Module, recipe: Recipe) -> int:
    groups = optim.build(model, recipe.optim).param_groups
    return sum((1 if group["muon"] else 2) * one.numel() for group in groups for one in group["params"])


def _seconds(recipe: Recipe, config: DiTConfig, buckets: list[BucketPlan], passes: int) -> float:
    device = pick_device()
    dtype = torch.float32 if recipe.precision.startswith("32") else torch.bfloat16
    blocks = config.depth_double + config.depth_single + 1
    step = sum(
        one.share * 3 * blocks * block_seconds(config, one.tokens, one.rows, device, dtype) for one in buckets
    )
    return passes * step
