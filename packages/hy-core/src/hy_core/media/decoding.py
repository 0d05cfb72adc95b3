"""Decode one stream of a file, and warn when the file is damaged or breaks off."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from hy_core.errors import HyError
from hy_core.media.display import describe_hdr

log = logging.getLogger(__name__)

# Containers whose headers say how long they are; the others' durations are estimates.
_EXACT = ("mov", "matroska", "wav", "flac", "avi")
_TOLERANCE = 0.25  # seconds


class Decoder:
    """The frames of `stream`, in the order in which they are shown or heard.

    Damage ends them with a warning in the log, `HyError` if nothing came before it. A file that ends earlier than its
    header says is warned of too, unless reading didn't begin at its start (`whole`).
    """

    def __init__(self, path: Path, container: Any, stream: Any, whole: bool = True) -> None:
        self.path, self.container, self.stream, self.whole = path, container, stream, whole
        self.what = "video" if stream.type == "video" else "sound"

    def __iter__(self) -> Iterator[Any]:
        count, packets, end, corrupt = 0, 0, 0.0, False
        try:
            for packet in self.container.demux():
                if packet.size:
                    time = packet.pts if packet.pts is not None else packet.dts
                    if time is not None:
                        end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
                    corrupt = corrupt or packet.is_corrupt
                # Not packet.stream_index, which is 0 at the end of any stream.
                if packet.stream.index != self.stream.index:
                    continue
                packets += packet.size > 0
                for frame in packet.decode():
                    if not count and self.what == "video" and (kind := describe_hdr(frame)):
                        log.warning("%s is HDR (%s): its colours are converted to SDR", self.path, kind)
                    count += 1
                    yield frame
        except (av.FFmpegError, OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            if not count:
                hint = "its frames may have more than 8192x4352 pixels" if self.what == "video" else None
                raise HyError(f"{self.path} cannot be read as a {self.what} ({reason})", hint) from problem
            log.warning(
                "the %s of %s is damaged: it ends after %.1f s (%s)", self.what, self.path, end, reason
            )
            return
        if count and self.whole and (reason := self._missing(packets, end, corrupt)):
            log.warning("%s breaks off: %s", self.path, reason)

    def _missing(self, packets: int, end: float, corrupt: bool) -> str | None:
        """What a file has less than its header says, in words."""
        stated, name = self.stream.frames, self.container.format.name
        if stated > packets and name.startswith(("mov", "gif")):  # AVI counts frames that are left out
            return f"{packets} of {stated} frames of {self.what} are there"
        if name.startswith(_EXACT) and self.container.duration:
            begun = (self.container.start_time or 0) / av.time_base
            length = self.container.duration / av.time_base
            if end - begun < length - _TOLERANCE:
                return f"{max(end - begun, 0):.1f} of {length:.1f} s are there"
        if name == "gif" and not self._ends_with(b";"):
            return "it has no end mark"
        return "its last part is damaged" if corrupt else None

    def _ends_with(self, mark: bytes) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-min(64, self.path.stat().st_size), 2)
            return file.read().rstrip(b"\0").endswith(mark)
