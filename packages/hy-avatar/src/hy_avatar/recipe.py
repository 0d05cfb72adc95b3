"""The `[conditioning.avatar]` table of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.errors import UsageError
from hy_core.tables import bounded, from_table

from hy_avatar.config import RUN_DEFAULTS, AvatarConfig
from hy_avatar.objective import FACE, LIPS, Dropout

if TYPE_CHECKING:
    from hy_avatar.model_files import ModelFiles

WHERE = "[conditioning.avatar]"


@dataclass(frozen=True)
class TrainingConfig:
    """Which modules are trained, by which drivers, and how the loss is weighted.

    `config` is the modules' `AvatarConfig` (left out: that of the weights from which training starts). `face` and
    `lips` are added to the loss weight, 1 elsewhere. `fix_first_frame` is the share of batches whose first frame is
    fixed and takes the portrait's place as the reference. `drivers` are the shares of batches by their drivers, such as
    `{ speech = 3, "expression pose" = 1 }` (left out: all drivers in all batches). `whisper` is the folder of the
    Whisper model for encoder = "whisper", `codec` the file of the face codec for extractor = "codec"; `dropout` is a
    table of `Dropout`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    face: float = bounded(FACE, 0, 1e6)
    lips: float = bounded(LIPS, 0, 1e6)
    fix_first_frame: float = bounded(0.1, 0, 1)
    drivers: Mapping[str, Any] = field(default_factory=dict)
    whisper: str = ""
    codec: str = ""
    dropout: Dropout = Dropout()

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> TrainingConfig:
        """Read a recipe's table; UsageError names an unknown key or a value of the wrong type or range."""
        return from_table(cls, table, WHERE)

    @property
    def whisper_folder(self) -> Path | None:
        """The folder of the Whisper model, if one is named."""
        return Path(self.whisper) if self.whisper else None

    def avatar_config(self, files: ModelFiles) -> AvatarConfig:
        """Return the config of the trained modules: the weights' own with the table's run defaults, or the table's.

        UsageError if there is neither, or if the table's modules differ from those of the weights.
        """
        own = AvatarConfig.from_json(self.config) if self.config else None
        if files.weights is None:
            if own is None:
                raise UsageError(
                    f"{WHERE}: no weights to start from, and no config of new modules",
                    "add a table config to it, see docs/how-to/train.md",
                )
            return own
        found = files.config()
        if own is None:
            return found
        if own.modules() != found.modules():
            raise UsageError(
                f"[{WHERE[1:-1]}.config]: other modules than those of the weights from which training starts",
                "leave the table out",
            )
        return replace(found, **{name: getattr(own, name) for name in RUN_DEFAULTS if name in self.config})

    def check_codec(self, config: AvatarConfig) -> None:
        """Raise UsageError if a face codec is named and not needed, or needed and not named."""
        is_needed = config.expression is not None and config.expression.extractor == "codec"
        if is_needed and not self.codec:
            raise UsageError(
                f'{WHERE}: extractor = "codec" needs a face codec', 'name its file: codec = "FILE"'
            )
        if self.codec and not is_needed:
            raise UsageError(f'{WHERE}: codec is given, but no expression has extractor = "codec"')

    def driver_shares(self, config: AvatarConfig) -> dict[tuple[str, ...], float]:
        """Return the share of batches for each set of drivers; UsageError for a driver that `config` lacks."""
        supported = tuple(
            name
            for name, one in (
                ("speech", config.speech),
                ("expression", config.expression),
                ("pose", config.pose != "none"),
            )
            if one
        )
        where = f"{WHERE}: drivers"
        for names, share in self.drivers.items():
            if unknown := sorted(set(names.split()) - set(supported)):
                raise UsageError(
                    f"{where}: these weights have no modules for {unknown[0]!r}", f"use {' '.join(supported)}"
                )
            if (
                isinstance(share, bool)
                or not isinstance(share, (int, float))
                or not 0 <= share < float("inf")
            ):
                raise UsageError(f"{where}: {names!r} = {share!r} is no share", "give a number, as 1 or 0.5")
        if self.drivers and not any(self.drivers.values()):
            raise UsageError(
                f"{where}: all shares are 0", "leave drivers out to train all of them in all batches"
            )
        shares = {tuple(names.split()): float(share) for names, share in self.drivers.items()}
        return shares or {supported: 1.0}
