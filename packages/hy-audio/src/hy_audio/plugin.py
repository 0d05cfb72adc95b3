"""The plugin `audio`: a soundtrack for every generated clip, training, stages for data. Imports torch only to run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hy_core import Conditioner, hookimpl, option
from hy_core.errors import HyError

if TYPE_CHECKING:
    from hy_core.request import Request, Result

    from hy_audio.soundtrack import AudioGenerator

log = logging.getLogger(__name__)


class Audio(Conditioner):
    """Make sound for the finished frames."""

    @dataclass(frozen=True)
    class Options:
        model: Path | None = option(None, metavar="DIR", help="Folder of the audio model; default: pocket.")
        prompt: str | None = option(None, help="Description of the sound; default: the clip's prompt.")
        negative: str | None = option(None, help="Negative prompt; default: the model's own.")
        steps: int | None = option(
            None, minimum=1, maximum=1000, help="Sampling steps; default: the model's own."
        )
        cfg: float | None = option(
            None, minimum=0, maximum=1000,
            help="Classifier-free guidance; default: the model's own.",
        )  # fmt: skip
        seed: int | None = option(None, minimum=0, help="Seed of the noise; default: the clip's seed.")
        lufs: float = option(-16.0, minimum=-60, maximum=0, help="Loudness, in LUFS.")
        peak: float = option(-1.0, minimum=-20, maximum=0, help="Highest true peak, in dBTP.")
        channels: Literal["auto", "mono", "stereo"] = option(
            "auto", help="Channels; auto: as the model makes them."
        )

    def validate(self, request: Request) -> None:
        """Check that the model is there: that of the folder, or pocket."""
        from hy_audio.models import kind

        try:
            kind(self.options.model)
        except HyError as error:
            if self.options.model is None:
                raise
            raise self.error("model", error.message) from None

    def adds_sound(self) -> bool:
        """Return True: that is what the plugin does."""
        return True

    def finish(self, request: Request, result: Result) -> None:
        """Set the sound of the clip."""
        import numpy as np

        from hy_audio.models import POCKET
        from hy_audio.soundtrack import generate_soundtrack
        from hy_audio.soundtrack_options import SoundtrackOptions

        options = self.options
        prompt = request.prompt if options.prompt is None else options.prompt
        seed = request.seed if options.seed is None else options.seed
        if result.sound is not None:
            log.warning("the clip had sound already; it is replaced")
        channels = {"auto": None, "mono": 1, "stereo": 2}[options.channels]
        settings = SoundtrackOptions(options.lufs, options.peak, channels)
        result.sound = generate_soundtrack(
            np.asarray(result.frames), result.fps, self.generator(prompt, seed, request, result), settings
        )
        result.provenance["sound"] = {
            "model": str(options.model or POCKET.name), "prompt": prompt, "seed": seed
        }  # fmt: skip

    def generator(self, prompt: str, seed: int, request: Request, result: Result) -> AudioGenerator:
        """The model for a prompt; the session keeps the last one, for clips that share it."""
        from hy_audio.models import load_generator

        options = self.options
        rest = (options.negative, options.steps, options.cfg, seed, request.device, request.dtype)
        return result.session_cache.get(
            f"{self.name}.model",
            lambda: load_generator(options.model, prompt, *rest),
            (options.model, prompt, *rest),
        )


@hookimpl
def register_conditioners(register: Callable[..., None]) -> None:
    """Offer sound to `hy generate`."""
    register(Audio)


@hookimpl
def register_objectives(register: Callable[..., None]) -> None:
    """Offer the objectives of sound models to `hy train`."""
    register("mel-vae", "hy_audio.training.mel_vae:MelVAEObjective")
    register("vocoder", "hy_audio.training.vocoder:VocoderObjective")
    register("audio-flow", "hy_audio.training.dit:AudioFlowObjective")


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Offer the user's clips to `hy train`."""
    register("sound-clips", "hy_audio.training.clips:SoundClips")


@hookimpl
def register_recipes(register: Callable[..., None]) -> None:
    """Offer the recipes of the small models."""
    for path in sorted(Path(__file__).with_name("recipes").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_stages(register: Callable[..., None]) -> None:
    """Offer the stages of sound to the data pipeline."""
    register("sound-presence", "hy_audio.stages.presence:Presence")
    register("sound-bandwidth", "hy_audio.stages.presence:Bandwidth")
    register("sound-kind", "hy_audio.stages.kinds:SoundKind")
    register("sound-consistency", "hy_audio.stages.consistency:Consistency")
    register("sound-caption", "hy_audio.stages.captions:SoundCaption")
