"""How a run samples, beside what the network sees (`hy_core.condition.Condition`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hy_core.condition import Condition, form_of, join, merge
from hy_core.errors import ConflictError, PluginError

if TYPE_CHECKING:
    from hy_core.flow.cache import StepCache
    from hy_core.flow.guidance import Scale
    from hy_core.flow.windows import Windows
    from hy_core.request import Request


@dataclass(frozen=True)
class MaskRestriction:
    """Mask-restricted guidance: the part of a plugin's adapter inputs that acts inside a mask only.

    `mask` [B or 1, 1, F, h, w] is nonzero inside; `outside` are the owner's adapter inputs without that part.
    """

    owner: str
    mask: Tensor
    outside: Any

    def doubled(self, cond: Condition) -> Condition:
        """The rows of `cond`, and below them those of the second rollout: 2B rows.

        In the positive condition these have the adapter inputs `outside`; in the negative one they are the same.
        """
        if cond.negative:
            return merge([cond, cond])
        return merge([cond, cond.copy(adapter_inputs=cond.adapter_inputs | {self.owner: self.outside})])

    def combined(self, latents: Tensor) -> Tensor:
        """Replace the first B rows of latents [2B, C, F, h, w] outside the mask by the other B; same shape."""
        inside, outside = latents.chunk(2)
        return torch.cat([torch.where(self.mask.to(latents.device) != 0, inside, outside), outside])


@dataclass
class SamplingPolicy:
    """How a clip is sampled: the request's settings, and what conditioners set in `plan_sampling`.

    `scale` is the classifier-free guidance scale: a number, or a function of (step from 0, steps). `windows` cut a
    long video (`hy_core.flow.windows`), `step_cache` lets steps reuse results of others (`hy_core.flow.cache`),
    `restriction` limits a plugin to a mask, and `trimmed_frames` decoded frames are removed from the clip's start.

    Each setting has one owner: a second plugin that sets it is a ConflictError that names both.
    """

    sampler: str = "euler"
    schedule: str = "shifted"
    steps: int = 20
    shift: float | None = None
    scale: Scale = 1.0
    windows: Windows | None = None
    step_cache: StepCache | None = None
    restriction: MaskRestriction | None = None
    trimmed_frames: int = 0
    _owners: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request) -> SamplingPolicy:
        """The policy that a request asks for, before conditioners change it."""
        return cls(request.sampler, request.schedule, request.steps, request.shift, request.cfg)

    def set_scale(self, owner: str, scale: Scale) -> None:
        """Replace the request's `cfg` in each step; needs a negative branch, so a request with `cfg` other than 1."""
        self._own(owner, "guidance scale")
        self.scale = scale

    def set_windows(self, owner: str, windows: Windows) -> None:
        """Denoise a long video in windows."""
        self._own(owner, "windows")
        self.windows = windows

    def set_step_cache(self, owner: str, cache: StepCache) -> None:
        """Reuse the results of the network's first blocks in some steps."""
        self._own(owner, "step cache")
        self.step_cache = cache

    def restrict_to_mask(self, owner: str, cond: Condition, mask: Tensor, outside: Any) -> None:
        """Restrict a part of the owner's adapter inputs to the places where `mask` [B or 1, 1, F, h, w] isn't 0.

        `outside` are the adapter inputs without that part, in the same form. Outside the mask the latents are
        replaced, before each step and at the end, by those of a second rollout from the same noise with `outside`,
        which doubles the rows. `cond` is the positive condition. PluginError for a mask of another shape.
        """
        wanted = [1, cond.frames, *cond.size]
        if mask.ndim != 5 or mask.shape[0] not in (1, cond.rows) or list(mask.shape[1:]) != wanted:
            raise PluginError(
                f"{owner}: restrict_to_mask takes a mask {[cond.rows, *wanted]}, not {list(mask.shape)}"
            )
        self._own(owner, "mask restriction")
        self.restriction = MaskRestriction(owner, mask, outside)

    def trim_start(self, frames: int) -> None:
        """Remove the first `frames` decoded frames of the clip; of several values the largest holds."""
        self.trimmed_frames = max(self.trimmed_frames, frames)

    def _own(self, owner: str, setting: str) -> None:
        if (other := self._owners.setdefault(setting, owner)) != owner:
            raise ConflictError(f"{other} and {owner} both set the run's {setting}", "drop one")


def mergeable_policies(policies: Sequence[SamplingPolicy], rows: Sequence[int]) -> bool:
    """Whether clips with these policies can share a batch: the same trim, and restrictions of the same form."""

    def form(policy: SamplingPolicy, count: int) -> tuple[Any, ...]:
        one = policy.restriction
        return policy.trimmed_frames, one and (one.owner, form_of(one.outside, count))

    return len({form(policy, count) for policy, count in zip(policies, rows, strict=True)}) == 1


def merge_policies(policies: Sequence[SamplingPolicy], rows: Sequence[int]) -> SamplingPolicy:
    """The policy of a batch whose clips have `rows` rows each: the first, with the masks of all."""
    first = policies[0]
    found = [policy.restriction for policy in policies if policy.restriction is not None]
    if not found or len(policies) == 1:
        return first
    restriction = replace(
        found[0],
        mask=join([one.mask for one in found], rows),
        outside=join([one.outside for one in found], rows),
    )
    return replace(first, restriction=restriction)
