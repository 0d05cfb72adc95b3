"""Conditioner: one way to steer a generation; the class that a plugin fills in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
    from hy_core.request import Request, Result

LIFECYCLE = (
    "defaults",
    "validate",
    "segments",
    "attach",
    "encode",
    "attach_for_training",
    "training_condition",
    "branches",
    "before_step",
    "finish",
    "weights",
    "owns_key",
    "attach_from_checkpoint",
    "parallel_plan",
)


@dataclass(frozen=True)
class Segments:
    """A clip that is made piece by piece: `count` segments, each after the first going on from the last.

    A segment has the frames of the request. `overlap` is how many frames (4k+1) of what is there it begins with;
    they are left out of it when it is put behind the rest.
    """

    count: int
    overlap: int


class Conditioner:
    """One way to steer a generation. Override what you need; the rest does nothing.

    Call order: `defaults` and `validate` (of all plugins), `weights` and `attach` (of each), `segments` for each clip,
    `encode` for each segment and guidance branch, `branches`, `before_step` at each step, `finish`. `parallel_plan`
    is called when the network is split among devices; `attach_for_training` and `training_condition` in training.
    A module that defines a Conditioner must not import torch at its top: import it inside the methods that need it.
    """

    @dataclass(frozen=True)
    class Options:
        """A frozen dataclass of `option()` fields; each is a flag, a TOML key and a keyword."""

    name: ClassVar[str] = "conditioner"
    """What flags, TOML tables, ports and weights call it: the name it is registered under."""

    options: Any

    home: Path | None = None
    """The folder of the model that it is used with, if that has one; set before `weights` is asked."""

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

    def error(self, option: str, message: str) -> UsageError:
        """An error to raise about one option: `--dawn-curve: needs numbers, such as 0.1,0.9`."""
        return UsageError(f"{opts.flag(self.name, option)}: {message}")

    def defaults(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """What this plugin would rather have where the user says nothing, such as the size of a picture.

        `model` holds the model's own defaults by their names in `Request`: width, height, frames, fps, steps...
        Return those that should differ. Cheap; imports no torch.
        """
        return {}

    def validate(self, request: Request) -> None:
        """Look at files, sizes and ranges, and raise a HyError early. Cheap; imports no torch."""

    def segments(self, request: Request) -> Segments | None:
        """Make the clip longer than one run of the network, in segments. None: this plugin doesn't ask for it."""
        return None

    def attach(self, dit: DiT) -> None:
        """Attach modules at the ports of a network on the meta device: shapes only, no values."""

    def encode(self, request: Request, cond: Condition) -> None:
        """Load encoders, fill the condition, free them. Called for each clip and each guidance branch."""

    def attach_for_training(self, dit: DiT, table: Mapping[str, Any]) -> Mapping[str, str]:
        """In training, in place of `attach`: attach what the plugin's own table of the recipe asks for.

        Values that `weights` names are loaded after. Return what a file with the trained weights is to say of itself,
        as metadata: what `attach` has to know to attach them again.
        """
        self.attach(dit)
        return {}

    def training_condition(self, batch: Mapping[str, Any], cond: Condition) -> None:
        """In training: do the same as `encode` from the cached features of a batch."""

    def branches(self, cond: Condition) -> Iterable[Branch]:
        """Further guidance terms, beside the text's."""
        return ()

    def before_step(self, latents: Tensor, t: float, cond: Condition) -> Tensor:
        """Change the noisy latents [B, C, F, H, W] before a step at time `t` (1 is noise, 0 is clean)."""
        return latents

    def finish(self, request: Request, result: Result) -> None:
        """After decoding: add sound, grade the frames, write files beside the clip."""

    def weights(self) -> str | None:
        """The safetensors file with the values of what `attach` attached; None when nothing needs loading."""
        return None

    def owns_key(self, key: str) -> bool:
        """Whether a key of a model's own checkpoint is this plugin's: some hold a plugin's modules too."""
        return False

    def attach_from_checkpoint(self, dit: DiT, state: Mapping[str, Tensor]) -> None:
        """In place of `attach`, for a model whose checkpoint has tensors that this plugin `owns_key`: attach from them.

        HyError if they don't fit, all of them.
        """
        raise NotImplementedError

    def parallel_plan(self) -> Mapping[str, ParallelStyle]:
        """Tensor-parallel styles for the attached modules, keyed by the names below this plugin's."""
        return {}


def suggested(conditioners: Iterable[Conditioner], model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's defaults with what the conditioners would rather have; ConflictError if two disagree."""
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
    """How a clip is to be made; ConflictError if two conditioners want it in segments."""
    asked = {one.name: wish for one in conditioners if (wish := one.segments(request)) is not None}
    if len(asked) > 1:
        raise ConflictError(
            f"{' and '.join(sorted(asked))} both make the clip in segments", "drop one of them"
        )
    return next(iter(asked.values()), Segments(1, 0))
