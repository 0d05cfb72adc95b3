"""The stage that writes structured captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from hy_core.data import JSON, ClipRecord, Stage
from hy_core.errors import MissingError
from hy_core.options import option

from hy_data.captions.backends.base import Captioner
from hy_data.captions.schema import CaptionError, StructuredCaption
from hy_data.frames import ClipFrames, FrameStage, View

if TYPE_CHECKING:
    import numpy as np


class Caption(FrameStage):
    """Write a structured caption for a clip.

    Finds `caption_fields` (a JSON object, see `hy_data.captions.StructuredCaption`), `captions` (the short description,
    and all fields as one text), `caption_source` (the back-end), and `caption_repairs` (how many faults of a model's
    answer were repaired). A clip is rejected only if its caption can't be had after `tries`.
    """

    name = "caption"
    needs: ClassVar[tuple[str, ...] | None] = None  # the results of all stages

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """How captions are made."""

        backend: Literal["measured", "given", "transformers", "endpoint"] = option(
            "measured", help="What writes captions."
        )
        keep_given: bool = option(True, help="Keep captions that a clip has already, whatever the back-end.")
        model: str | None = option(None, help="Folder of a model (transformers), or its name (endpoint).")
        url: str | None = option(None, help="Address of an endpoint, such as http://localhost:8000/v1.")
        key_variable: str = option("HY_CAPTION_KEY", help="Environment variable with the endpoint's API key.")
        frames: int = option(8, help="Frames that a model sees.", minimum=1, maximum=64)
        height: int = option(360, help="Height of these frames in pixels.", minimum=32, maximum=2160)
        tries: int = option(3, help="Answers that are asked for until one is valid.", minimum=1, maximum=20)
        max_tokens: int = option(1024, help="Longest answer.", minimum=32, maximum=16384)
        timeout: float = option(120.0, help="Seconds that an endpoint may take.", minimum=0.1, maximum=3600)
        retries: int = option(4, help="Repeated requests after a failure.", minimum=0, maximum=20)
        per_minute: float = option(0.0, help="Most requests a minute in a worker; 0 for no limit.", minimum=0)
        camera_confidence: float = option(
            0.6, help="Least confidence of a camera motion that is stated.", minimum=0, maximum=1
        )

    @cached_property
    def _captioner(self) -> Captioner:
        from hy_data.captions.backends import given, measured

        options = self.options
        if options.backend == "given":
            return given.Given()
        if options.backend == "measured":
            return measured.Measured(options.camera_confidence)
        shared = {name: getattr(options, name) for name in ("frames", "height", "tries", "max_tokens")}
        if options.backend == "endpoint":
            from hy_data.captions.backends import endpoint

            own = {
                name: getattr(options, name) for name in ("timeout", "retries", "per_minute", "key_variable")
            }
            return endpoint.made(options.url, options.model, **shared, **own)
        from hy_data.captions.backends import vlm

        if not options.model:
            raise MissingError("the backend transformers needs model, the folder of a vision-language model")
        return vlm.VisionLanguageModel(options.model, **shared)

    def setup(self) -> None:
        """Load the model, if there is one."""
        self._captioner.setup()

    def views(self) -> tuple[View, ...]:
        count = self._captioner.frames
        return (View(self._captioner.height, count=count),) if count else ()

    def measure(
        self, record: ClipRecord, frames: ClipFrames
    ) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        import numpy as np

        from hy_data.captions.backends import given, measured

        captioner, source = self._captioner, self.options.backend
        if self.options.keep_given and (record.captions or record.results.get("caption_fields")):
            captioner, source = given.Given(), "given"
        views = self.views()
        pictures = (
            frames[views[0]] if views and captioner is self._captioner else np.zeros((0, 1, 1, 3), np.uint8)
        )
        try:
            repaired = captioner.caption(record, pictures, frames.duration)
        except CaptionError as error:
            return {}, error.message
        caption = repaired.caption
        if not caption.camera_motion and (
            motion := measured.camera_motion(record, self.options.camera_confidence)
        ):
            caption = caption.model_copy(update={"camera_motion": motion})
        found: dict[str, JSON | np.ndarray] = {
            "caption_fields": caption.to_json(),
            "captions": list(texts(caption)),
            "caption_source": source,
            "caption_repairs": len(repaired.repairs),
        }
        return found, None


def texts(caption: StructuredCaption) -> tuple[str, ...]:
    """Return the plain captions of a structured one: short, and all fields in one text."""
    return tuple(dict.fromkeys((caption.short_description, caption.text())))
