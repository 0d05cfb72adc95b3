"""Write MP4 (H.264, AAC) and WebM (VP9, Opus): the same frames give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hy_core.errors import UsageError
from hy_core.media.writer import Writer
from hy_core.request import Sound


@dataclass(frozen=True)
class Codecs:
    """What a container holds: codecs and their options, and the container's."""

    video: str
    video_options: Mapping[str, str]
    sound: str
    options: Mapping[str, str]


# Clips of the small models are 64 pixels wide: a low CRF costs nothing there and keeps edges clean.
# x264's macroblock tree isn't stable on small pictures, and a container's ids are random: neither is wanted.
CODECS = {
    ".mp4": Codecs(
        "libx264",
        {"crf": "15", "preset": "medium", "x264-params": "mbtree=0"},
        "aac",
        {"movflags": "+faststart", "fflags": "+bitexact"},
    ),
    ".webm": Codecs("libvpx-vp9", {"crf": "20", "b": "0", "row-mt": "1"}, "libopus", {"fflags": "+bitexact"}),
}
_BT709 = 1
_AAC_RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
_OPUS_RATES = (48000,)


class VideoWriter(Writer):
    """A video of 4:2:0 in BT.709; odd sizes gain a repeated row or column."""

    container: Any = None

    def put(self, frames: np.ndarray) -> None:
        height, width = frames.shape[1:3]
        if self.container is None:
            self._open(width + width % 2, height + height % 2)
        if height % 2 or width % 2:
            frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = self.count, 1 / self.rate
            self.count += 1
            self.container.mux(self.video.encode(frame))

    def _open(self, width: int, height: int) -> None:
        codecs = CODECS[self.path.suffix.lower()]
        self.count, self.rate = 0, Fraction(self.fps).limit_denominator(1001)
        self.container = av.open(address(self.staging.file(self.path)), "w", options=dict(codecs.options))
        self.video = self.container.add_stream(
            codecs.video, rate=self.rate, options=dict(codecs.video_options)
        )
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        self.video.time_base = 1 / self.rate
        context = self.video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709
        if self.sound is not None:
            self.voice = open_sound(self.container, codecs.sound, self.sound)
        if (comment := self.comment()) is not None:
            self.container.metadata["comment"] = comment

    def finish(self) -> None:
        if self.container is None:
            raise UsageError(f"no frames to write to {self.path}")
        self.container.mux(self.video.encode(None))
        if self.sound is not None:
            put_sound(self.container, self.voice, self.sound)
        self.container.close()
        self.container = None

    def abort(self) -> None:
        if self.container is not None:
            with suppress(OSError, av.FFmpegError):  # the file is thrown away
                self.container.close()
            self.container = None


def address(path: Path) -> str:
    """Return a file's name for FFmpeg, which takes `tcp:1.mp4` for an address."""
    return f"file:{path}"


def open_sound(container: Any, codec: str, sound: Sound) -> Any:
    """Add a sound stream to an output container; rates that the codec lacks become 48 kHz."""
    rates = _OPUS_RATES if codec == "libopus" else _AAC_RATES
    stream = container.add_stream(codec, rate=sound.rate if sound.rate in rates else 48000)
    stream.layout = "mono" if sound.samples.shape[0] == 1 else "stereo"
    stream.bit_rate = 96000 * min(sound.samples.shape[0], 2)
    return stream


def put_sound(container: Any, stream: Any, sound: Sound) -> None:
    """Encode all of a sound into a stream of `open_sound`."""
    samples = np.ascontiguousarray(np.clip(sound.samples[:2], -1, 1), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = sound.rate, 0, Fraction(1, sound.rate)
    context = stream.codec_context
    change = av.AudioResampler(
        context.format, stream.layout, stream.rate, frame_size=context.frame_size or None
    )
    for piece in [*change.resample(frame), *change.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
