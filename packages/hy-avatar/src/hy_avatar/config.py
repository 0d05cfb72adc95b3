"""The avatar's config: which modules a set of weights has, and the defaults of a run with them. No torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hy_core.tables import bounded, check_fields, from_table

RUN_DEFAULTS = ("area", "fix_first_frame", "restrict_to_mask", "guide_reference", "speech_gate")
"""Fields of `AvatarConfig` that no weight depends on: a run's defaults where the user gives no option."""
_SIZE, _EVERY = 1 << 20, 1 << 10


@dataclass(frozen=True)
class Speech:
    """Speech: features [window, layers, channels] of a pixel frame become `tokens` tokens, read after blocks.

    The defaults are the released model's: 10 steps of Whisper tiny's 5 hidden states of 384 channels, one head of 1024.
    `encoder` "mel" takes mel bands instead, one layer with a channel per band, which needs no encoder weights.
    `ordered` adds a learnt vector to each of the four pixel frames of a latent frame. At 25 frames a second their
    windows overlap and identify them; at 8 they don't.
    """

    window: int = bounded(10, 1, 1024)
    layers: int = bounded(5, 1, 1024)
    channels: int = bounded(384, 1, _SIZE)
    hidden: int = bounded(1024, 1, _SIZE)
    tokens: int = bounded(4, 1, 4096)
    heads: int = bounded(1, 1, 4096)
    inner: int = bounded(1024, 1, _SIZE)
    every: int = bounded(2, 0, _EVERY)  # double blocks
    every_single: int = bounded(0, 0, _EVERY)  # no single blocks
    encoder: Literal["whisper", "mel"] = "whisper"
    ordered: bool = False


@dataclass(frozen=True)
class Expression:
    """Expression: a latent of `features` numbers of a pixel frame becomes `tokens` tokens of a latent frame.

    `extractor` makes the latents: "points" of the face, or a trained face "codec" (see `expression_extract`);
    `ordered` as for `Speech`.
    """

    features: int = bounded(128, 1, _SIZE)
    hidden: int = bounded(256, 1, _SIZE)
    tokens: int = bounded(16, 1, 4096)
    heads: int = bounded(1, 1, 4096)
    inner: int = bounded(1024, 1, _SIZE)
    every_double: int = bounded(2, 0, _EVERY)
    every_single: int = bounded(4, 0, _EVERY)
    extractor: Literal["points", "codec"] = "points"
    ordered: bool = False


@dataclass(frozen=True)
class Task:
    """A bottleneck adapter for a further task after every `every` blocks of both kinds."""

    rank: int = bounded(64, 1, _SIZE)
    every: int = bounded(1, 0, _EVERY)


@dataclass(frozen=True)
class AvatarConfig:
    """The drivers of a set of weights, None or False without one, and a run's defaults.

    `reference`: "add" (released: own patch embedding and a linear map, added to the video's tokens), "channel" (paper:
    as further input channels) or "none". `pose`: "guided" (own patch embedding, initially zero), "paper" (the network's
    own embedding, so that the skeleton's latents are added to the noisy ones) or "none". `controls` is how many numbers
    each kind of motion takes; 0 without.

    A run's defaults: `area` scales the mask relative to the face box, `fix_first_frame` fixes the first frame to the
    picture, `restrict_to_mask` limits speech and expression to the face, `guide_reference` applies guidance to the
    reference too (the negative branch has none), and `speech_gate` closes the mouth in all that isn't speech ("auto"),
    in silence ("silence"), or never ("off").
    """

    speech: Speech | None = None
    expression: Expression | None = None
    pose: Literal["none", "guided", "paper"] = "none"
    controls: int = bounded(4, 0, 4096)
    reference: Literal["add", "channel", "none"] = "add"
    area: float = bounded(3.0, 0.01, 1000)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    fix_first_frame: bool = False
    restrict_to_mask: bool = False
    guide_reference: bool = False
    speech_gate: Literal["auto", "silence", "off"] = "auto"

    def __post_init__(self) -> None:
        where = "the avatar's config"
        check_fields(self, where)
        tasks = {
            name: task if isinstance(task, Task) else from_table(Task, _table(task, name), f"{where}: {name}")
            for name, task in self.tasks.items()
        }
        object.__setattr__(self, "tasks", tasks)

    @property
    def guided(self) -> tuple[str, ...]:
        """The conditions that guidance applies to: the negative branch is without them."""
        return ("speech", "expression", "pose", *(["reference"] if self.guide_reference else []))

    def to_json(self) -> dict[str, Any]:
        """Return the table that `from_json` reads, of plain JSON types."""
        return dataclasses.asdict(self)

    def modules(self) -> dict[str, Any]:
        """Return the fields that the weights depend on, as JSON: all but `RUN_DEFAULTS`."""
        return {name: value for name, value in self.to_json().items() if name not in RUN_DEFAULTS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AvatarConfig:
        """Read a table of `to_json`; UsageError for an unknown key or a value of the wrong type or range."""
        return from_table(cls, _table(data, "config"), "the avatar's config")


def _table(value: Any, name: str) -> Mapping[str, Any]:
    from hy_core.errors import UsageError

    if not isinstance(value, Mapping):
        raise UsageError(
            f"the avatar's config: {name}: needs a table, not {json.dumps(value, default=str)[:60]}"
        )
    return value


RELEASED = AvatarConfig(speech=Speech())
"""The released HunyuanVideo-Avatar."""
