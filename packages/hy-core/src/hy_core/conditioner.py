"""Conditioner: one way to steer a generation; the class that a plugin fills in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hy_core import options as opts
from hy_core.errors import ConflictError, UsageError
from hy_core.guard import guarded_method

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from torch.distributed.tensor.parallel import ParallelStyle

    from hy_core.condition import Condition
    from hy_core.dit import DiT
    from hy_core.flow.guidance import Branch
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.request import Request, Result
    from hy_core.training import TrainingBatch

LIFECYCLE = (
    "defaults",
    "validate",
    "segments",
    "attach",
    "encode",
    "plan_sampling",
    "attach_for_training",
    "training_condition",
    "branches",
    "before_step",
    "adds_sound",
    "finish",
    "weights",
    "attach_key",
    "owns_key",
    "attach_from_checkpoint",
    "parallel_plan",
)


@dataclass(frozen=True)
class Segments:
    """A clip made in `count` segments, each continuing the one before.

    A segment has the request's number of frames. Its first `overlap` frames (4k+1) repeat the end of the clip so far
    and are removed when it is appended.
    """

    count: int
    overlap: int


class Conditioner:
    """One way to steer a generation. Override what you need; the rest does nothing.

    Call order: `defaults` and `validate` (of all plugins), `weights` and `attach` (of each), `segments` for each clip,
    then for each segment: `encode` for each guidance branch, `plan_sampling`, `branches`, `before_step` at each step;
    `finish` at the end of the clip. `parallel_plan` is called when the network is split among devices;
    `attach_for_training` and `training_condition` in training.

    A conditioner holds its options and nothing else: one instance may serve several clips at once, in threads. What
    both guidance branches of a clip need is made once through the cache of the condition's encoding context,
    `cond.encoding.clip_cache.get(f"{self.name}.features", make)`; models that many clips use go into
    `cond.encoding.session_cache` or `result.session_cache`. `folder` is the model's folder, None for a model that
    wasn't read from one.

    A module that defines a Conditioner must not import torch at its top: import it inside the methods that need it.
    """

    @dataclass(frozen=True)
    class Options:
        """A frozen dataclass of `option()` fields; each is a flag, a TOML key and a keyword."""

    name: ClassVar[str] = "conditioner"
    """What flags, TOML tables, ports and weights call it: the name it is registered under."""

    options: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:  # until it is registered
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        for call in LIFECYCLE:
            if inspect.isfunction(method := cls.__dict__.get(call)):
                setattr(cls, call, guarded_method(call, method))

    def __init__(self, options: Any = None, /, **values: Any) -> None:
        """Take an `Options` instance, or its fields as keywords; UsageError names the flag of a wrong one."""
        if options is None:
            options = opts.parse(self.name, self.Options, values)
        elif values or not isinstance(options, self.Options):
            raise TypeError(f"{type(self).__name__} takes one {self.Options.__qualname__}, or keywords")
        self.options = options

    @classmethod
    def for_training(cls) -> Self:
        """Make one for `hy train`, which has no flags: options have their defaults, and required ones are None."""
        return cls(opts.parse(cls.name, cls.Options, {}, partial=True))

    def error(self, option: str, message: str) -> UsageError:
        """An error to raise about one option: `--dawn-curve: needs numbers, such as 0.1,0.9`."""
        return UsageError(f"{opts.flag(self.name, option)}: {message}")

    def defaults(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return defaults of this plugin for settings that the user leaves open, such as a picture's size.

        `model` holds the model's own defaults by their names in `Request`: width, height, frames, steps... but `fps` is
        that of the run, so that a length in seconds becomes the right number of frames.
        Return those that should differ. Cheap; imports no torch.
        """
        return {}

    def validate(self, request: Request) -> None:
        """Check files, sizes and ranges, and raise a HyError before anything is loaded. Cheap; imports no torch."""

    def segments(self, request: Request) -> Segments | None:
        """Make the clip longer than one run of the network, in segments. None: this plugin doesn't need it."""
        return None

    def attach(self, dit: DiT, folder: Path | None = None) -> None:
        """Attach modules at the ports of a network; on the meta device if `weights` names a file with their values."""

    def encode(self, request: Request, cond: Condition) -> None:
        """Add this plugin's contributions to the condition of one guidance branch.

        Called for the positive and, with `cfg` other than 1, for the negative branch (`cond.negative`) of each clip
        and segment.
        """

    def plan_sampling(self, request: Request, cond: Condition, policy: SamplingPolicy) -> None:
        """Change how the clip is sampled: guidance scale, windows, step cache, mask restriction, trimmed frames.

        Called once for each clip and segment, after `encode`, with the positive condition.
        """

    def attach_for_training(
        self, dit: DiT, table: Mapping[str, Any], folder: Path | None = None
    ) -> Mapping[str, str]:
        """In training, in place of `attach`: attach what the plugin's own table of the recipe asks for.

        Values that `weights` names are loaded afterwards. Return the metadata that a file with the trained weights
        needs for `attach` to attach the same modules again.
        """
        self.attach(dit, folder)
        return {}

    def training_condition(self, batch: TrainingBatch, cond: Condition) -> Tensor | None:
        """In training: fill the condition as `encode` does, from a batch of clips.

        Return how much places count in the loss, 1 being usual, broadcasting over latents [B, C, F, h, w]; None for
        all alike. The weights of several plugins are multiplied.
        """
        return None

    def branches(self, request: Request, cond: Condition) -> Iterable[Branch]:
        """Return guidance terms beside the text's. `cond` is the positive condition of all rows of the batch.

        `request` is that of the first row; the others differ in prompts and seed only.
        """
        return ()

    def before_step(self, latents: Tensor, t: float, cond: Condition) -> Tensor:
        """Change the noisy latents [B, C, F, H, W] before a step at time `t` (1 is noise, 0 is clean)."""
        return latents

    def adds_sound(self) -> bool:
        """Whether `finish` adds sound: asked before the run, for files that can't hold it."""
        return False

    def finish(self, request: Request, result: Result) -> None:
        """Change the decoded clip: add sound, grade the frames, write files beside the clip."""

    def weights(self, folder: Path | None = None) -> str | None:
        """The safetensors file with the values of the attached modules; None when nothing needs loading."""
        return None

    def attach_key(self, folder: Path | None = None) -> Hashable:
        """What the attached modules depend on besides their weights file: all options, unless a plugin knows better.

        Clips with equal keys and equal files share the modules; others replace them.
        """
        options: Hashable = self.options
        return options

    def owns_key(self, key: str, folder: Path | None = None) -> bool:
        """Whether a tensor of the model's own checkpoint belongs to this plugin's modules."""
        return False

    def attach_from_checkpoint(
        self, dit: DiT, state: Mapping[str, Tensor], folder: Path | None = None
    ) -> None:
        """In place of `attach`, for a checkpoint with tensors that `owns_key` claims: attach modules filled from them.

        `state` holds these tensors by their names in the checkpoint; HyError if any are missing or left over.

        `state` holds tensors of any shape by name.
        """
        raise NotImplementedError

    def parallel_plan(self) -> Mapping[str, ParallelStyle]:
        """Tensor-parallel styles for the attached modules, keyed by the names below this plugin's."""
        return {}


def suggested(conditioners: Iterable[Conditioner], model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's defaults with those of the conditioners in their place; ConflictError if two disagree."""
    found: dict[str, tuple[str, Any]] = {}
    for conditioner in conditioners:
        for key, value in conditioner.defaults(model).items():
            owner, other = found.setdefault(key, (conditioner.name, value))
            if other != value:
                raise ConflictError(
                    f"{owner} suggests {key} {other}, {conditioner.name} suggests {value}",
                    f"say which: --{key}",
                )
    return {**model, **{key: value for key, (_, value) in found.items()}}


def segments(conditioners: Iterable[Conditioner], request: Request) -> Segments:
    """The segments of a clip; ConflictError if two conditioners set them."""
    asked = {one.name: wish for one in conditioners if (wish := one.segments(request)) is not None}
    if len(asked) > 1:
        raise ConflictError(
            f"{' and '.join(sorted(asked))} both make the clip in segments", "drop one of them"
        )
    return next(iter(asked.values()), Segments(1, 0))


def encode(
    conditioners: Sequence[Conditioner], request: Request, conds: Sequence[Condition]
) -> SamplingPolicy:
    """Fill the conditions of a clip's guidance branches, the positive one first; return how to sample them."""
    from hy_core.flow.policy import SamplingPolicy

    for cond in conds:
        for conditioner in conditioners:
            conditioner.encode(request, cond)
    policy = SamplingPolicy.of(request)
    for conditioner in conditioners:
        conditioner.plan_sampling(request, conds[0], policy)
    return policy
