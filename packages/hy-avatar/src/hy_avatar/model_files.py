"""Where the avatar's weights for a model are, and what these weights and this model support; no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hy_core.errors import MissingError, UsageError
from hy_core.models import POCKET

from hy_avatar.config import RELEASED, AvatarConfig
from hy_avatar.options import EXPRESSION_SCALE, HEAD_SCALE, AvatarOptions

SHIPPED = Path(__file__).with_name("pocket") / "avatar.safetensors"
"""The weights for the built-in model, which come with this package."""
RELEASED_FOLDER = "llava_llama_image"
"""A folder that only the released HunyuanVideo-Avatar has."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model for a plugin `name` with these options; `folder` is the model's, None if it has none.

    `error` makes a UsageError about an option: `error(option, message)`.
    """

    name: str
    options: AvatarOptions
    error: Callable[[str, str], UsageError]
    folder: Path | None
    training: bool = False

    @property
    def weights(self) -> Path | None:
        """The modules' weights: --avatar-weights, or a file in the model's folder, or the shipped one.

        The shipped file belongs to the built-in model. Training never starts from it: a recipe that starts from the
        built-in model defines the modules itself.
        """
        if self.options.weights:
            return self.options.weights
        places = [self.folder / f"{self.name}.safetensors"] if self.folder else []
        if self.folder == POCKET and not self.training:
            places.append(SHIPPED)
        return next((place for place in places if place.is_file()), None)

    def config(self) -> AvatarConfig:
        """Return the config in the weights' metadata, the released one without such a file; see `check_drivers`."""
        from hy_core.weights.files import find, metadata

        if (file := self.weights) is None:
            return self.check_drivers(RELEASED)
        try:
            return self.check_drivers(AvatarConfig.from_json(json.loads(metadata(find(file))["config"])))
        except (KeyError, ValueError):
            raise self.error("weights", f"{file} has no avatar config in its metadata") from None

    def check_present(self) -> None:
        """Raise MissingError if the model has no avatar weights."""
        if self.weights is None:
            raise MissingError(
                "this model has no avatar in it, and no --avatar-weights are given",
                "give a released HunyuanVideo-Avatar model's folder as --model, or weights that were trained for it",
            )

    def check_drivers(self, config: AvatarConfig) -> AvatarConfig:
        """Return the config; UsageError if it has no modules for a driver that is given."""
        options = self.options
        for name, is_given, supported in (
            ("speech", options.speech, config.speech),
            ("expression", options.expression, config.expression),
            ("pose", options.pose, config.pose != "none"),
        ):
            if is_given and not supported:
                raise self.error(
                    name, f"this model's avatar follows no {name}: its weights have no modules for it"
                )
        return config

    def check_supported(self, config: AvatarConfig) -> None:
        """Raise UsageError for an option that is given and has no effect with this model."""
        from hy_avatar import image_prompt

        options = self.options
        reads_mel = config.speech is not None and config.speech.encoder == "mel"
        motion = "has no input for the amount of motion"
        for name, is_given, supported, why in (
            ("head_scale", options.head_scale != HEAD_SCALE, config.controls, motion),
            ("expression_scale", options.expression_scale != EXPRESSION_SCALE, config.controls, motion),
            ("whisper", options.whisper, not reads_mel, "reads mel bands, not Whisper features"),
            (
                "image_prompt",
                options.image_prompt == "instead",
                image_prompt.find(self.folder),
                "has no language model that reads pictures",
            ),
            ("cache", not options.cache, self.is_sampled_as_released(), "isn't sampled as released"),
        ):
            if is_given and not supported:
                raise self.error(name, f"this model {why}; leave it out")

    def is_sampled_as_released(self) -> bool:
        """Whether a run of this model has the released sampler's guidance."""
        if self.options.guidance == "auto":
            return self.folder is not None and (self.folder / RELEASED_FOLDER).is_dir()
        return self.options.guidance == "released"
