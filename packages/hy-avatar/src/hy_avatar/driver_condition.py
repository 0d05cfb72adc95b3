"""The condition of a training batch: reference, drivers and loss weights, from what is known about its clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hy_core.errors import UsageError
from hy_core.training.batch import to_pixels
from torch import Tensor

from hy_avatar import clip_features
from hy_avatar.clip_features import HEAD, ClipFeatures, Row
from hy_avatar.config import AvatarConfig
from hy_avatar.driver_cache import DriverCache, fingerprint
from hy_avatar.face_codec import TrainedExtractor
from hy_avatar.network import slice_frames
from hy_avatar.objective import drop, loss_weights
from hy_avatar.recipe import TrainingConfig

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.training import TrainingBatch


class DriverConditionBuilder:
    """Fills the condition of training batches; the features of a clip are made once and cached.

    `name` is the plugin's. UsageError for settings that don't fit the config.
    """

    def __init__(self, name: str, config: AvatarConfig, settings: TrainingConfig) -> None:
        self.name, self.config, self.settings = name, config, settings
        settings.check_codec(config)
        self.shares = settings.driver_shares(config)
        self.features = ClipFeatures(config, settings.whisper_folder)
        self._caches: dict[Any, DriverCache] = {}

    @cached_property
    def extractor(self) -> TrainedExtractor | None:
        """The face codec that reads expressions from pixels; None if they come from points of the face."""
        if not self.settings.codec or self.config.expression is None:
            return None
        found = TrainedExtractor.load(self.settings.codec)
        if found.dimension != self.config.expression.features:
            raise UsageError(
                f"{self.settings.codec} gives {found.dimension} numbers a frame, not {self.config.expression.features}",
                "set features in [conditioning.avatar.config.expression]",
            )
        return found

    def fill(self, batch: TrainingBatch, cond: Condition) -> Tensor:
        """Add reference, drivers and fixed frames of a batch to its condition; return loss weights [B, 1, F, h, w]."""
        generator, rows = batch.generator, self.rows(batch, cond)
        made = {name: torch.stack([row[name].float() for row in rows]) for name in rows[0]}
        mask, drivers = made["mask"], self.draw_drivers(generator)
        inputs: dict[str, Any] = {"frames": cond.frames, "reference": made["reference"]}
        if "speech" in drivers:
            inputs["speech"] = {"features": made["speech"], "mask": mask}
        if "expression" in drivers:
            inputs["expression"] = {"features": made["expression"], "mask": mask}
        if "pose" in drivers:
            inputs["pose"] = made["pose"]
            if "expression" in drivers:
                inputs["pose_mask"] = made["rest"]
        if numbers := self.config.controls:
            inputs["motion_head"] = made["head"].expand(-1, numbers)
            inputs["motion_expression"] = made["lively"].expand(-1, numbers)
            inputs["fps"] = made["fps"].flatten()
        if torch.rand(1, generator=generator, device=generator.device).item() < self.settings.fix_first_frame:
            inputs["reference"] = made["first"]
            cond.fix_frames(self.name, [0], batch.latents[:, :, :1])
        dropped = self.settings.dropout.draw(batch.prompts, generator, self.config.guided)
        inputs = drop(inputs, dropped)
        cond.add_context(self.name, inputs["reference"][:, :, :1], [-1], "video")
        cond.set_adapter_inputs(self.name, inputs, slice_frames)
        weights = loss_weights(made["face"], made["lips"], self.settings.face, self.settings.lips)
        # Normalised, so that a close-up has no more weight than a whole body.
        return weights / weights.mean((2, 3, 4), keepdim=True)

    def draw_drivers(self, generator: torch.Generator) -> Sequence[str]:
        """Draw the drivers of a batch; the condition has no inputs for the others."""
        shares = torch.tensor(list(self.shares.values()), device=generator.device)
        return list(self.shares)[int(torch.multinomial(shares, 1, generator=generator).item())]

    def rows(self, batch: TrainingBatch, cond: Condition) -> list[Row]:
        """Return each clip's tensors, without the dimension of rows; from the cache where they are in it."""
        cache = self.driver_cache(batch.cache_folder, cond)
        rows = dict(cache.find(batch.keys))
        new = {key: index for index, key in enumerate(batch.keys) if key not in rows}
        if new:
            clips = [batch.clips[index] for index in new.values()]
            pixels = None
            if self.settings.fix_first_frame or self.extractor:
                pixels = torch.stack([to_pixels(clip.video()) for clip in clips])
            try:
                made = self.make_rows([clip.annotations() for clip in clips], cond, pixels)
            except KeyError as error:
                raise UsageError(
                    f"the avatar is trained on {error.args[0]!r}, which the clips' source doesn't have",
                    'take clips of characters: [data] source = "characters", or run the stage that finds it',
                ) from None
            halves = {
                key: {name: value.half() for name, value in row.items()}
                for key, row in zip(new, made, strict=True)
            }
            cache.put(halves)
            rows |= halves
        return [rows[key] for key in batch.keys]

    def make_rows(
        self, annotations: Sequence[Mapping[str, Any]], cond: Condition, pixels: Tensor | None = None
    ) -> list[Row]:
        """Return the tensors of clips; `pixels` [N, 3, T, H, W] in -1..1 for a fixed first frame and a face codec."""
        first = pixels[:, :, :1] if pixels is not None and self.settings.fix_first_frame else None
        rows = self.features.read(annotations, cond, first)
        if self.extractor and pixels is not None:
            for row, known, video in zip(rows, annotations, pixels, strict=True):
                row["expression"] = clip_features.codec_latents(self.extractor, video, known)
        return rows

    def driver_cache(self, folder: Path | None, cond: Condition) -> DriverCache:
        """Return the cache of clips of this size, by these settings and this VAE; on disk given a folder."""
        shape = cond.frames, *cond.size, *cond.patch
        if shape not in self._caches:
            place = None
            if folder is not None and cond.encoding.vae is not None:
                settings: list[Any] = [self.settings.whisper, self.settings.fix_first_frame > 0]
                settings += [self.config.area, HEAD]
                if self.extractor:
                    settings.append(fingerprint([], self.extractor.codec))
                place = (
                    folder
                    / "avatar"
                    / fingerprint([shape, settings, self.config.modules()], cond.encoding.vae)
                )
            self._caches[shape] = DriverCache(place)
        return self._caches[shape]
