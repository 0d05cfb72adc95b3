"""Condition: all that one guidance branch of the network sees besides the noisy video, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hy_core.errors import ConflictError, PluginError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from hy_core.flow.cache import StepCache
    from hy_core.flow.guidance import Scale
    from hy_core.flow.windows import Windows
    from hy_core.vae import VAE, Tiling

    Part = Callable[[Any, Sequence[int]], Any]
    Tiles = Callable[[int], Tiling | None]

Time = Literal["clean", "video"]


@dataclass(frozen=True)
class Extra:
    """Tokens that a plugin adds to the text stream: one [n, D] for each row, or one for all rows."""

    owner: str
    tokens: tuple[Tensor, ...]
    before: bool


@dataclass(frozen=True)
class Context:
    """Frames that the network sees beside the video and that never reach the output.

    `latents` [B, C, f, h, w]; `at` are their f temporal positions (the video's own are 0, 1, 2, …; -1 lies
    before them); `time` is "clean" (they run at time 0) or "video" (at the video's own time).
    """

    owner: str
    latents: Tensor
    at: tuple[float, ...]
    time: Time


@dataclass(frozen=True)
class Pin:
    """A frame of the video that is given: `latent` [B, C, h, w] in the model's scale.

    `time` is how noisy it is: 0 for a clean one; training may disturb it a little and say so.
    """

    owner: str
    latent: Tensor
    time: float = 0.0


@dataclass(frozen=True)
class Confined:
    """Where what the owner feeds may show: `mask` [B or 1, 1, F, h, w], and the feed without what is confined."""

    owner: str
    mask: Tensor
    feed: Any


@dataclass
class Condition:
    """What one guidance branch sees: B rows of text and pooled text, and what plugins contribute.

    `text` holds the valid tokens of each row, [L_i, D_text], without padding; `pooled` is [B, D_pooled];
    `guidance` [B] is the embedded guidance value (see `hy_core.dit.embedded_guidance`) or None; `frames` and
    `size` (height, width) count latents; `prompts` and `negative` tell a plugin which branch this is; `vae`
    is the model's, for a plugin that has pictures to encode, `tiles` how this run cuts a clip of so many frames for it
    (None: whole), and `folder` the model's, for one that finds an encoder of its own there.

    `channels` is how many channels the network takes beside the noisy ones: 0 in most (see `fill`); `patch` are the
    rows and columns of latents that are one of its tokens. `riflex`
    slows down one temporal frequency (`hy_core.dit.rope.riflex`), for clips longer than those of the training.

    A clip that is made in segments has a condition for each: `start` is the frame of the clip that this
    segment begins at, `past` are the last frames made so far, those of the overlap, uint8 [F, H, W, 3]; the first has
    no past.

    `scale`, `windows` and `cache` say how it is sampled, where a plugin wants it otherwise (see `sample`);
    `confined` keeps the rest of the video as it would be without a driver (see `confine`); `weight` says in training
    how much each place counts in the loss (see `weigh`).

    Contributions are additive (`add_text`, `add_context`, `feed`: each owner has its own) or exclusive (`pin`
    one frame, `set_text`, `fill`: a second owner is a ConflictError that names both). What is additive is kept
    in the order of the owners' names, so that the order of plugins on a command line changes nothing.
    """

    text: list[Tensor]
    pooled: Tensor
    frames: int
    size: tuple[int, int]
    fps: float = 24.0
    guidance: Tensor | None = None
    prompts: tuple[str, ...] = ()
    negative: bool = False
    vae: VAE | None = None
    tiles: Tiles | None = None
    folder: Path | None = None
    channels: int = 0
    patch: tuple[int, int] = (2, 2)
    riflex: bool = False
    start: int = 0
    past: np.ndarray | None = None
    dropped: int = 0
    scale: Scale | None = None
    windows: Windows | None = None
    cache: StepCache | None = None
    confined: Confined | None = None
    weight: Tensor | None = None
    feeds: dict[str, Any] = field(default_factory=dict)
    pins: dict[int, Pin] = field(default_factory=dict)
    _extras: list[Extra] = field(default_factory=list)
    _contexts: list[Context] = field(default_factory=list)
    _beside: tuple[str, Tensor] | None = None
    _text_owner: str | None = None
    _parts: dict[str, Part] = field(default_factory=dict)
    _sampling: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """B, the number of videos."""
        return len(self.text)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the network's tokens."""
        return self.size[0] // self.patch[0], self.size[1] // self.patch[1]

    @property
    def contexts(self) -> list[Context]:
        """Context frames in the order in which they stand before the video."""
        return sorted(self._contexts, key=lambda context: context.owner)

    def tokens(self) -> list[Tensor]:
        """The text stream of each row: tokens added before, the prompt's, tokens added after."""
        extras = sorted(self._extras, key=lambda extra: extra.owner)
        rows = []
        for row, prompt in enumerate(self.text):
            before = [e.tokens[row % len(e.tokens)] for e in extras if e.before]
            after = [e.tokens[row % len(e.tokens)] for e in extras if not e.before]
            parts = [part.to(prompt) for part in (*before, prompt, *after)]
            rows.append(torch.cat(parts) if len(parts) > 1 else prompt)
        return rows

    def set_text(self, owner: str, text: Sequence[Tensor], pooled: Tensor | None = None) -> None:
        """Replace the prompt's tokens (a model that reads picture and prompt together). Exclusive."""
        if self._text_owner not in (None, owner):
            raise ConflictError(
                f"{self._text_owner} and {owner} both replace the prompt's tokens", "drop one of them"
            )
        self._check(owner, len(text) == self.rows, f"set_text takes {self.rows} rows, not {len(text)}")
        self._text_owner, self.text = owner, list(text)
        self.pooled = self.pooled if pooled is None else pooled

    def add_text(self, owner: str, tokens: Sequence[Tensor] | Tensor, before: bool = True) -> None:
        """Add tokens to the text stream: one [n, D] for each row in a list, or one for all rows. Additive."""
        tokens = (tokens,) if isinstance(tokens, Tensor) else tuple(tokens)
        self._check(
            owner, len(tokens) in (1, self.rows), f"add_text takes 1 or {self.rows} rows, not {len(tokens)}"
        )
        width = self.text[0].shape[-1]
        for part in tokens:
            fits = part.ndim == 2 and part.shape[1] == width
            self._check(owner, fits, f"add_text takes tokens [n, {width}], not {list(part.shape)}")
        self._extras.append(Extra(owner, tokens, before))

    def add_context(self, owner: str, latents: Tensor, at: Sequence[float], time: Time = "clean") -> None:
        """Show the network frames [B, C, f, h, w] at the temporal positions `at`. Additive."""
        at = tuple(float(position) for position in at)
        self._check(
            owner, time in ("clean", "video"), f"add_context takes time 'clean' or 'video', not {time!r}"
        )
        self._check_latents(owner, "add_context", latents, len(at))
        self._contexts.append(Context(owner, latents, at, time))

    def pin(self, owner: str, frames: Sequence[int], latents: Tensor, time: float = 0.0) -> None:
        """Give frames of the video: values [B, C, len(frames), h, w] held, at `time`. Exclusive for each frame.

        Frames count latent frames from 0, or from the end when negative (-1 is the last). `time` is 0 for clean
        latents, else the time that their noise has on the path.
        """
        self._check_latents(owner, "pin", latents, len(frames))
        for frame in frames:
            inside = -self.frames <= frame < self.frames
            self._check(owner, inside, f"pin frame {frame}: the video has {self.frames} latent frames")
        places = [frame % self.frames for frame in frames]
        self._check(owner, len(set(places)) == len(places), f"pin names a frame twice: {list(frames)}")
        for place in places:
            if place in self.pins:
                raise ConflictError(
                    f"{self.pins[place].owner} and {owner} both set latent frame {place}", "drop one"
                )
        for index, place in enumerate(places):
            self.pins[place] = Pin(owner, latents[:, :, index], time)

    def fill(self, owner: str, latents: Tensor) -> None:
        """Fill the network's further input channels: [B, `channels`, F, h, w], beside the noisy ones. Exclusive."""
        if self._beside is not None:
            raise ConflictError(
                f"{self._beside[0]} and {owner} both fill the network's further input channels", "drop one"
            )
        self._check_latents(owner, "fill", latents, self.frames)
        fits = latents.shape[1] == self.channels
        self._check(owner, fits, f"fill takes {self.channels} channels, not {latents.shape[1]}")
        self._beside = owner, latents

    @property
    def beside(self) -> Tensor | None:
        """What the network's further input channels were filled with [B, `channels`, F, h, w]."""
        return None if self._beside is None else self._beside[1]

    def drop(self, frames: int) -> None:
        """Leave out the first decoded `frames` of the result; of several wishes the longest holds."""
        self.dropped = max(self.dropped, frames)

    def feed(self, owner: str, value: Any, part: Part | None = None) -> None:
        """Hand `value` to the modules that the owner attached at ports; feeding again replaces it.

        Tensors in it, also inside dicts and lists, have the rows first: [B, ...], or [1, ...] for all. A long
        video is denoised in windows: `part(value, frames)` is the value of a window with these latent frames.
        Without it, tensors [B, F, ...] of the video's frames are cut and all else is taken as it is.
        """
        self.feeds[owner] = value
        if part is not None:
            self._parts[owner] = part

    def sample(
        self,
        owner: str,
        *,
        scale: Scale | None = None,
        windows: Windows | None = None,
        cache: StepCache | None = None,
    ) -> None:
        """Say how the run samples; each is exclusive. Asked of the positive condition only.

        `scale` takes the place of the request's `cfg` in each step (a number, or a function of the step from 0
        and the steps); it needs a negative prompt to be run beside, so a `cfg` other than 1. `windows` cut a long
        video, `cache` lets some steps reuse what others computed.
        """
        wishes = {"scale": scale, "windows": windows, "cache": cache}
        for name, value in wishes.items():
            if value is None:
                continue
            if (other := self._sampling.setdefault(name, owner)) != owner:
                raise ConflictError(f"{other} and {owner} both set the run's {name}", "drop one")
            setattr(self, name, value)

    def confine(self, owner: str, mask: Tensor, feed: Any) -> None:
        """Let a part of what the owner feeds show only where `mask` [B or 1, 1, F, h, w] isn't 0. Exclusive.

        `feed` is what it feeds without that part, in the same form. Elsewhere the latents are, before each step and in
        the end, those of the clip that the same noise becomes with it: that one is sampled too, which doubles the rows.
        Asked of the positive condition only.
        """
        if self.confined is not None and self.confined.owner != owner:
            raise ConflictError(f"{self.confined.owner} and {owner} both confine what they feed", "drop one")
        wanted = [1, self.frames, *self.size]
        fits = mask.ndim == 5 and mask.shape[0] in (1, self.rows) and list(mask.shape[1:]) == wanted
        self._check(owner, fits, f"confine takes a mask {[self.rows, *wanted]}, not {list(mask.shape)}")
        self.confined = Confined(owner, mask, feed)

    def doubled(self) -> Condition:
        """The rows of this condition, and below them those of the clip that `confined` keeps the rest to."""
        other = (
            self
            if self.confined is None
            else self.copy(feeds=self.feeds | {self.confined.owner: self.confined.feed})
        )
        return merge([self.copy(confined=None), other.copy(confined=None)])

    def weigh(self, weight: Tensor) -> None:
        """In training: say how much places count in the loss, 1 being usual; broadcasts over [B, C, F, h, w].

        What several plugins say is multiplied.
        """
        self.weight = weight if self.weight is None else self.weight * weight.to(self.weight)

    def window(self, frames: Sequence[int]) -> Condition:
        """The condition of some latent frames of the video, as a video of their own: its frames are 0, 1, 2..."""
        frames = list(frames)
        if frames == list(range(self.frames)):
            return self
        feeds = {
            owner: self._parts[owner](value, frames)
            if owner in self._parts
            else _cut(value, frames, self.frames)
            for owner, value in self.feeds.items()
        }
        pins = {place: self.pins[frame] for place, frame in enumerate(frames) if frame in self.pins}
        beside = self._beside and (self._beside[0], self._beside[1][:, :, frames])
        return self.copy(frames=len(frames), feeds=feeds, pins=pins, _beside=beside)

    def hold(self, latents: Tensor) -> Tensor:
        """Latents [B, C, F, h, w] with the pinned frames at their values; the same tensor without any."""
        if not self.pins:
            return latents
        frames = list(latents.unbind(2))
        for place, pin in self.pins.items():
            frames[place] = pin.latent.to(latents).expand_as(frames[place])
        return torch.stack(frames, 2)

    def copy(self, **changes: Any) -> Condition:
        """An independent condition with the same contributions, for another branch; `changes` set fields."""
        own = dict(
            text=list(self.text),
            feeds=dict(self.feeds),
            pins=dict(self.pins),
            _extras=list(self._extras),
            _contexts=list(self._contexts),
            _parts=dict(self._parts),
            _sampling=dict(self._sampling),
        )
        return replace(self, **(own | changes))

    def _check_latents(self, owner: str, call: str, latents: Tensor, frames: int) -> None:
        shape = list(latents.shape)
        fits = latents.ndim == 5 and shape[0] in (1, self.rows) and shape[2:] == [frames, *self.size]
        wanted = f"[{self.rows}, C, {frames}, {self.size[0]}, {self.size[1]}]"
        self._check(owner, fits, f"{call} takes latents {wanted}, not {shape}")

    @staticmethod
    def _check(owner: str, fine: bool, message: str) -> None:
        if not fine:
            raise PluginError(f"{owner}: {message}")


def mergeable(conditions: Sequence[Condition]) -> bool:
    """Whether `merge` can run these conditions as rows of one batch.

    They have the same size and frames, the same frames pinned and shown, and feeds of the same form.
    """

    def form(cond: Condition) -> tuple[Any, ...]:
        shown = tuple((c.at, c.time) for c in cond.contexts)
        fed = tuple((owner, _form(cond.feeds[owner], cond.rows)) for owner in sorted(cond.feeds))
        held = tuple(sorted((place, pin.time) for place, pin in cond.pins.items()))
        once = cond.guidance is None, cond.beside is None, cond.riflex, cond.dropped
        kept = cond.confined and (cond.confined.owner, _form(cond.confined.feed, cond.rows))
        return cond.frames, cond.size, once, held, shown, fed, kept

    return len(conditions) == 1 or len({form(cond) for cond in conditions}) == 1


def merge(conditions: Sequence[Condition]) -> Condition:
    """One condition with the rows of several, in order; they must be `mergeable`."""
    first = conditions[0]
    if len(conditions) == 1:
        return first
    rows = [cond.rows for cond in conditions]
    pins = {
        place: replace(pin, latent=_join([cond.pins[place].latent for cond in conditions], rows))
        for place, pin in first.pins.items()
    }
    contexts = [
        replace(context, latents=_join([cond.contexts[index].latents for cond in conditions], rows))
        for index, context in enumerate(first.contexts)
    ]
    confined = first.confined and replace(
        first.confined,
        mask=_join([cond.confined.mask for cond in conditions], rows),
        feed=_join([cond.confined.feed for cond in conditions], rows),
    )
    return replace(
        first,
        confined=confined,
        text=[row for cond in conditions for row in cond.tokens()],
        pooled=torch.cat([cond.pooled for cond in conditions]),
        guidance=None if first.guidance is None else torch.cat([cond.guidance for cond in conditions]),
        prompts=tuple(prompt for cond in conditions for prompt in cond.prompts),
        feeds={owner: _join([cond.feeds[owner] for cond in conditions], rows) for owner in first.feeds},
        pins=pins,
        _beside=first._beside and (first._beside[0], _join([cond.beside for cond in conditions], rows)),
        _extras=[],
        _contexts=contexts,
    )


def _cut(value: Any, frames: Sequence[int], whole: int) -> Any:
    """A feed of the video's `whole` frames, for some of them."""
    if isinstance(value, Tensor):
        return value[:, list(frames)] if value.ndim > 1 and value.shape[1] == whole > 1 else value
    if isinstance(value, Mapping):
        return {key: _cut(part, frames, whole) for key, part in value.items()}
    return [_cut(part, frames, whole) for part in value] if isinstance(value, list | tuple) else value


def _form(value: Any, rows: int) -> Any:
    """What two feeds must have in common to be joined; equal to nothing else if they can't be."""
    if isinstance(value, Tensor) and value.ndim and value.shape[0] in (1, rows):
        return value.shape[1:], value.dtype
    if isinstance(value, Mapping):
        return tuple((key, _form(value[key], rows)) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(_form(part, rows) for part in value)
    return value if isinstance(value, str | int | float | None) else object()


def _join(values: Sequence[Any], rows: Sequence[int]) -> Any:
    """Values of one form, one below the other."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([v.expand(n, *v.shape[1:]) for v, n in zip(values, rows, strict=True)])
    if isinstance(first, Mapping):
        return {key: _join([value[key] for value in values], rows) for key in first}
    if isinstance(first, list | tuple):
        return [_join(parts, rows) for parts in zip(*values, strict=True)]
    return first
