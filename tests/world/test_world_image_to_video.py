"""`hy eval world --task i2v`: clips that go on from a true first frame, and between two."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hy_core.errors import PluginError, UsageError
from hy_core.session import Session
from hy_world.codec import coded
from hy_world.evaluate import command
from hy_world.image_to_video import measure
from hy_world.render import render
from hy_world.tasks import EvalRequest, conditioner
from hy_world.text_to_video import draw
from PIL import Image

SMALL = ("--task", "i2v", "--size", "32x32", "--frames", "9", "--steps", "1", "--count", "3")
# A plugin that knows as much of pictures as the task asks for.
PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
from hy_core import Conditioner, hookimpl, option

class Given(Conditioner):
    @dataclass(frozen=True)
    class Options:
        image: Path = option(help="first")
        last: Path | None = option(None, help="last")
    def encode(self, request, cond):
        import numpy, torch
        from PIL import Image
        for place, path in ((0, self.options.image), (-1, self.options.last)):
            if path:
                picture = torch.from_numpy(numpy.asarray(Image.open(path)).copy()).permute(2, 0, 1)
                latent = cond.encoding.vae.encode(picture[None, :, None] / 127.5 - 1).mode()
                cond.fix_frames(self.name, [place], cond.encoding.vae.to_model(latent))

@hookimpl
def register_conditioners(register):
    register(Given)
"""


class Rounding(torch.nn.Module):
    """A codec that keeps colours to steps of 1/16 of their range."""

    def __init__(self):
        super().__init__()
        self.step = torch.nn.Parameter(torch.tensor(0.125))

    def encode_inference(self, x):
        self.mode = lambda: (x / self.step).round() * self.step
        return self

    def decode_inference(self, z):
        return z


@dataclass
class Model:
    vae: torch.nn.Module = field(default_factory=Rounding)


@dataclass
class Loaded:
    """What an evaluation needs of a session: its model."""

    model: Model = field(default_factory=Model)


@dataclass(frozen=True)
class Played(EvalRequest):
    """Clips from a function of the true clip and its number, in place of a network's."""

    play: object = None

    def make(self, prompts, options=()):
        scenes, stated = draw(self.groups[0], self.count, self.seed, self.frames, self.height, self.width, 1)
        assert prompts == [words.text for words in stated]
        for index, (scene, one) in enumerate(zip(scenes, options, strict=True)):
            clip = render(scene, self.frames, self.height, self.width)
            for name, frame in zip(one, (0, -1), strict=False):  # image, last
                assert np.array_equal(np.asarray(Image.open(one[name])), clip[frame])
            yield self.play(clip, index)


def reports(play, count=30, group="combinations"):
    asked = Played(Loaded(), [group], count, 17, 64, 64, play=play)
    found = list(measure(asked))
    assert [report.extra["given"] for report in found] == ["first", "first and last"]
    return [{line.attribute: line for line in report.lines} for report in found], found


def test_true_clips_are_right_in_everything():
    (first, ends), found = reports(lambda clip, index: clip)
    assert all(line.made.rate == line.real.rate == 1 for line in (*first.values(), *ends.values()))
    assert found[0].extra["difference"] > 0  # nothing was lost in a codec
    assert first["first frame"].base < 0.1 and ends["middle, moved"].base < 0.5
    assert ends["middle, moved"].made.total < ends["middle"].made.total
    json.dumps([report.to_json() for report in found])


def test_clips_that_stand_still_keep_everything_and_arrive_nowhere():
    (first, ends), found = reports(lambda clip, index: np.repeat(clip[:1], 17, 0))
    kept = [first[name].made.rate for name in ("first frame", "colour", "shape", "size", "background")]
    assert kept == [1] * 5 and first["motion"].made.rate < 0.4
    assert ends["middle, moved"].made.rate == 0
    assert ends["middle"].made.rate == pytest.approx(
        found[1].extra["still"], abs=0.02
    )  # the judge may be off by a pixel
    assert "stand still" in found[1].note


def test_other_clips_are_right_by_chance_only():
    true = {}
    reports(lambda clip, index: true.setdefault(index, clip))
    (first, ends), found = reports(lambda clip, index: true[(index + 1) % 30])
    assert first["first frame"].made.rate == 0 and found[0].extra["difference"] < -5
    for line in (first["colour"], first["shape"], ends["middle"]):
        assert abs(line.made.rate - line.base) < 3.5 * (line.base * (1 - line.base) / 30) ** 0.5, line


def test_a_first_frame_is_held_against_the_codec():
    def spoilt(clip, index):
        noise = np.random.default_rng(index).normal(0, 30, clip.shape)
        return (clip + noise).clip(0, 255).astype(np.uint8)

    (fine, _), found = reports(lambda clip, index: coded(Rounding(), clip[None])[0], count=10)
    (rough, _), worse = reports(spoilt, count=10)
    assert fine["first frame"].made.rate == 1 and found[0].extra["difference"] == 0
    assert rough["first frame"].made.rate == 0
    assert found[0].extra["codec_psnr"] == worse[0].extra["codec_psnr"] > worse[0].extra["first_psnr"]


def test_what_the_prompt_leaves_out_must_be_kept_too():
    (first, _), _ = reports(lambda clip, index: clip, count=20, group="wordings")
    assert {first[name].made.total for name in ("colour", "shape", "size", "background")} == {20}
    assert first["motion"].made.total < 20


@pytest.fixture
def run(tiny, monkeypatch):
    from hy_core import models
    from hy_core.plugins import installed

    monkeypatch.setattr(models, "load", lambda name, *_: tiny.model)

    def run(*arguments):
        installed.cache_clear()
        result = CliRunner().invoke(command, [*SMALL, *arguments])
        if isinstance(result.exception, (UsageError, PluginError)):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    yield run
    installed.cache_clear()


@pytest.fixture(params=["i2v", "file"])
def plugin(request, tmp_path):
    if request.param == "i2v":
        return "i2v"
    path = tmp_path / "given.py"
    path.write_text(PLUGIN)
    return str(path)


def test_any_plugin_that_takes_pictures_can_be_measured(run, plugin):
    summary = json.loads(run("--plugin", plugin, "--json").stdout)
    assert summary["task"] == "i2v" and summary["plugin"] == plugin
    first, ends = summary["groups"]
    assert (first["given"], ends["given"]) == ("first", "first and last")
    # Given frames don't depend on what the network can do.
    assert first["attributes"]["first frame"]["right"] == first["count"] == 3
    assert ends["attributes"]["middle"]["total"] == 3


def test_clips_that_go_through_together_have_pictures_of_their_own(tiny, tmp_path):
    for name, colour in (("red", (220, 0, 0)), ("blue", (0, 0, 220))):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{name}.png")
    told = []
    asked = EvalRequest(
        Session(tiny.model), [], 2, 9, 32, 32, steps=1, conditioner=conditioner("i2v"), advance=told.append
    )

    def make(*names):
        return list(asked.make(["a thing"] * 2, [{"image": tmp_path / f"{name}.png"} for name in names]))

    same, other = make("red", "red"), make("red", "blue")
    assert np.array_equal(same[0], other[0]) and not np.array_equal(same[1], other[1])
    assert told == [1, 1, 1, 1]
    with pytest.raises(UsageError, match="--i2v-image"):
        list(asked.make(["a thing"], [{"image": 3}]))


def test_clips_are_the_same_in_any_batch(run, tmp_path):
    sheets = []
    for batch in ("1", "3"):
        path = tmp_path / f"{batch}.png"
        text = run("--batch-size", batch, "--contact-sheet", str(path)).stdout
        assert "first frame given: 3 clips" in text and "by the VAE alone" in text
        sheets.append(np.asarray(Image.open(path)).astype(int))
    assert np.abs(sheets[0] - sheets[1]).max() <= 1 and sheets[0].std() > 5


def test_a_plugin_that_is_not_there_is_named(run):
    with pytest.raises(PluginError, match="no plugin 'i3v'"):
        run("--plugin", "i3v")
