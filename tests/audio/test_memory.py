"""A longer clip takes more time and disk, not more memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from audio.clips import lasts
from hy_audio.sync import Curve, score_sync

RUN = """
import sys
import numpy as np
from hy_audio.frame_sampler import FrameSampler
from hy_audio.soundtrack_options import SoundtrackOptions
from hy_audio.soundtrack import add_soundtrack

class AudioGenerator:
    rate, seconds, samplers = int(sys.argv[3]), 8.0, {"seen": FrameSampler(4.0, lambda frame: frame[::4, ::4])}

    def generate(self, seen, seconds, index):
        return 0.1 * np.random.default_rng(index).standard_normal((1, round(seconds * self.rate)), np.float32)

add_soundtrack(sys.argv[1], sys.argv[2], AudioGenerator(), SoundtrackOptions(existing=sys.argv[4]))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc"
)


UNIT = 32  # seconds: 500 frames of AAC at 16 kHz


def unit(path: Path, fps: int, size: int) -> Path:
    """A clip of one unit with a tone: a square moves, and the scene changes in the middle."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "35"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=16000, layout="mono")
        for at in range(UNIT * fps):
            image = np.full((size, size, 3), 40 if at < UNIT * fps // 2 else 160, np.uint8)
            image[10:20, at % (size - 10) :][:, :10] = 250
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        wave = 0.2 * np.sin(2 * np.pi * 300 * np.arange(UNIT * 16000) / 16000)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        out.mux(sound.encode(frame))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return path


def repeated(source: Path, path: Path, times: int) -> Path:
    """The packets of a clip of one unit, `times` in a row: encoding hours would take hours."""
    with av.open(str(source)) as box, av.open(str(path), "w") as out:
        streams = {
            one: out.add_stream_from_template(one) for one in (box.streams.video[0], box.streams.audio[0])
        }
        packets = [one for one in box.demux(list(streams)) if one.size and one.pts * one.time_base < UNIT]
        for number in range(times):
            for packet in packets:
                if number and packet.pts < 0:
                    continue  # what the encoder of sound begins with
                again, shift = av.Packet(bytes(packet)), int(number * UNIT / packet.time_base)
                again.stream, again.time_base = streams[packet.stream], packet.time_base
                again.pts, again.dts, again.duration = packet.pts + shift, packet.dts + shift, packet.duration
                again.is_keyframe = packet.is_keyframe
                out.mux(again)
    return path


def peak(source: Path, target: Path, rate: int, existing: str = "replace") -> float:
    """Highest memory of a process that makes sound for a clip, in MB."""
    command = [sys.executable, "-c", RUN, str(source), str(target), str(rate), existing]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 1024


@needs_proc
def test_a_clip_ten_times_as_long_needs_no_more_memory(tmp_path):
    """Its frames alone would be 300 MB, as they are read."""
    short = unit(tmp_path / "short.mp4", 5, 256)
    long = repeated(short, tmp_path / "long.mp4", 10)
    assert lasts(long, "video") == pytest.approx(10 * UNIT) and lasts(long, "audio") == pytest.approx(
        10 * UNIT, 0.01
    )
    grown = peak(long, tmp_path / "b.mp4", 8000) - peak(short, tmp_path / "a.mp4", 8000)
    assert lasts(tmp_path / "b.mp4", "audio") == pytest.approx(10 * UNIT, abs=0.1)
    assert grown < 40, f"{grown:.0f} MB more"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_proc
@pytest.mark.parametrize(("existing", "seconds"), [("replace", 7200), ("mix", 1920)])
def test_two_hours_need_no_more_memory_than_a_minute(tmp_path, existing, seconds):
    """The new sound alone would be 230 MB in two hours, and three times 369 MB where it is mixed at 48 kHz."""
    one = unit(tmp_path / "unit.mp4", 2, 64)
    short, long = (repeated(one, tmp_path / f"{n}.mp4", n) for n in (2, seconds // UNIT))
    grown = peak(long, tmp_path / "b.mp4", 8000, existing) - peak(short, tmp_path / "a.mp4", 8000, existing)
    assert grown < 60, f"{grown:.0f} MB more"


def test_timing_of_two_hours_is_measured_without_a_table_of_all_moments():
    count = 2 * 3600 * 100  # curves have 100 values a second
    moves = np.arange(50, count - 50, 100)  # one each second
    strength = np.zeros(count)
    strength[moves + 16] = 5.0
    tracemalloc.start()
    try:
        found = score_sync(Curve(strength, (moves + 16) * 0.01), Curve(np.zeros(count), moves * 0.01))
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()
    assert found.offset == pytest.approx(0.16, abs=0.011)
