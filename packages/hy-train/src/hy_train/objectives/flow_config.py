"""The tables `data` and `options` of a recipe with the objective `flow`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hy_core.data import ClipShape, SourceSpec
from hy_core.errors import UsageError


@dataclass(frozen=True)
class Bucket:
    """Clips of one shape, and how often a batch is drawn from them.

    `clips` is their number (0: all that the source has). `sampling_weight` is relative to other buckets; none are drawn
    before the fraction `start_fraction` of the run's steps: cheap images first, then clips (the curriculum of the
    HunyuanVideo report, section 4.5). `source` names the dataset (the recipe's `data.source` if empty), `options` are
    added to that source's table. `conditioning` lists the plugins that condition batches of this bucket (all of the
    recipe's if absent). `batch` is the number of rows (the recipe's if 0). `repa = false` excludes this bucket from the
    REPA loss.
    """

    frames: int
    height: int
    width: int
    clips: int
    sampling_weight: float = 1.0
    start_fraction: float = 0.0
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    conditioning: tuple[str, ...] | None = None
    batch: int = 0
    repa: bool = True

    @property
    def shape(self) -> ClipShape:
        """The shape of the clips in pixels."""
        return ClipShape(self.frames, self.height, self.width)

    def spec(
        self, source: str, seed: int, table: dict[str, Any], others: Sequence[Bucket] = ()
    ) -> SourceSpec:
        """Return what this bucket asks of its source.

        `source` and `table` are the recipe's, `others` all buckets of it.
        """
        shapes = {
            one.shape: None
            for one in others
            if (one.source or source, one.options) == (self.source or source, self.options)
        }
        options = {**table, **self.options}
        return SourceSpec(
            self.source or source,
            "train",
            seed,
            self.clips,
            self.frames,
            self.height,
            self.width,
            options=options,
            shapes=tuple(shapes) if len(shapes) > 1 else (),
        )


@dataclass(frozen=True)
class FlowData:
    """Which clips are trained on, and with which codec and text encoders.

    `model` names the model whose VAE and text encoders are used: by default that of `init_from`, or pocket. `vae` is a
    folder with vae.safetensors and vae.json to use in place of the model's VAE. `source` is the dataset of buckets that
    name none; `sources` holds a table of options for each dataset.

    `captions` is how many captions of a clip are encoded in advance, of which batches draw one; with 0 each row draws a
    new one, and the processes that make batches run the text encoders. `cache` is the folder of latents and text
    features, by default the run's: several runs may share one. `heldout` is how many held-out clips the loss is
    measured on, with 0 training clips are taken.
    """

    buckets: tuple[Bucket, ...]
    model: str = ""
    vae: str = ""
    source: str = ""
    sources: dict[str, Any] = field(default_factory=dict)
    captions: int = 16
    cache: str = ""
    heldout: int = 32

    def __post_init__(self) -> None:
        if min(self.captions, self.heldout) < 0:
            raise UsageError(
                f"data.captions = {self.captions}, heldout = {self.heldout}: must not be negative"
            )
        if not self.buckets:
            raise UsageError("data.buckets is empty", "give one bucket or more")
        for one in self.buckets:
            if not one.source and not self.source:
                raise UsageError(
                    "data.source: neither the recipe nor a bucket names a dataset", 'source = "folder"'
                )
            if min(one.frames, one.height, one.width) < 1 or one.frames % 4 != 1 or one.clips < 0:
                raise UsageError(
                    f"data.buckets: {one.clips} clips of {one.frames}x{one.height}x{one.width}",
                    "frames 1, 5, 9, ...; height and width in pixels",
                )
            if not 0 <= one.start_fraction < 1 or not 0 <= one.sampling_weight < float("inf"):
                raise UsageError(
                    f"data.buckets: start_fraction = {one.start_fraction:g}, sampling_weight ="
                    f" {one.sampling_weight:g} are out of range",
                    "a fraction from 0 to below 1, a weight that isn't negative",
                )
        if not any(one.sampling_weight and not one.start_fraction for one in self.buckets):
            raise UsageError(
                "data.buckets: no bucket is drawn at the first step",
                "give one start_fraction = 0 and a weight above 0",
            )


@dataclass(frozen=True)
class FlowOptions:
    """The loss: how timesteps are drawn, captions dropped and places weighted.

    `timestep_sampling` and `shift` are those of `hy_core.flow.schedule.sample_times`. `caption_dropout` is the share of
    rows trained without caption, for classifier-free guidance. `foreground_weight` is the extra weight of places where
    a clip differs from its background; the mean weight of a clip stays 1.

    `repa_targets` ("module:function", see `hy_train.repa`) turns on representation alignment: tokens after block
    `repa_block` (from 1) learn to predict these features, with weight `repa_weight` in the loss.
    """

    timestep_sampling: str = "logit-normal"
    shift: float = 1.0
    caption_dropout: float = 0.1
    foreground_weight: float = 0.0
    repa_targets: str = ""
    repa_weight: float = 0.5
    repa_block: int = 1
