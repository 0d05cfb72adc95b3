"""`hy eval world --task audio`: the sound of real clips and of generated ones, as a plugin makes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner
from hy_core import Conditioner, option
from hy_core.errors import HyError, UsageError
from hy_core.request import Sound
from hy_world.audio import measure, timing
from hy_world.evaluate import command
from hy_world.sound import RATE, sound
from hy_world.tasks import EvalRequest, plugin_options
from hy_world.text_to_video import draw

pytest.importorskip("librosa")
COUNT, SIZE = 50, (17, 32, 32)
PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from hy_core import Conditioner, hookimpl, option
from hy_core.request import Sound

class Tone(Conditioner):
    @dataclass(frozen=True)
    class Options:
        level: float = option(0.1, minimum=0, maximum=1, help="loud")
        mute: bool = option(False, help="none at all")
    def finish(self, request, result):
        if self.options.mute:
            return
        count = round(len(result.frames) / result.fps * 8000)
        result.sound = Sound(np.full((1, count), self.options.level, np.float32), 8000)

@hookimpl
def register_conditioners(register):
    register(Tone)
"""


@cache
def drawn():
    return draw("combinations", COUNT, 0, *SIZE, 1)[0]


class Oracle(Conditioner):
    """Makes the true sound of the scene that stands `shift` after the clip's own."""

    name = "oracle"

    @dataclass(frozen=True)
    class Options:
        shift: int = option(0, help="of scenes")
        late: float = option(0.0, help="seconds")

    def finish(self, request, result):
        scenes = drawn()
        index = request.seed + self.options.shift
        wave = sound(scenes[index % COUNT], len(result.frames), result.fps, seed=request.seed + 1000)
        result.sound = Sound(np.roll(wave, round(self.options.late * RATE))[None], RATE)


def report(**options):
    asked = EvalRequest(None, ["combinations"], COUNT, *SIZE, conditioner=Oracle, options=options)
    (found,) = measure(asked)
    json.dumps(found.to_json())
    return {line.attribute: line for line in found.lines}, found


def test_true_sounds_are_right_and_others_are_not():
    lines, found = report()
    assert set(lines) == {"impact", "size", "shape", "silence", "sound", "impact, bouncing"}
    assert all(line.made.rate >= 0.95 and line.real.rate >= 0.95 for line in lines.values())
    assert lines["impact"].base < 0.2 and lines["impact, bouncing"].base < 0.6
    assert found.extra["impacts"] >= 8 and not found.extra["generated"]
    assert len(found.clips) == COUNT and found.clips[0].shape == (17, 32, 32, 3)
    wrong, _ = report(shift=1)
    assert wrong["impact"].made.rate < 0.3 and wrong["silence"].made.rate < 0.7
    late, _ = report(late=0.2)
    assert late["impact"].made.rate < 0.2 and late["impact"].real.rate >= 0.95


def test_real_clips_differ_in_length_and_rate():
    frames, fps = timing(EvalRequest(None, [], 50, *SIZE))
    assert min(frames) == 17 and 30 < max(frames) <= 34 and len(set(fps)) > 30
    assert all((count - 1) % 4 == 0 for count in frames)
    assert (frames, fps) == timing(EvalRequest(None, [], 50, *SIZE))


@pytest.fixture
def run(tiny, monkeypatch, tmp_path):
    from hy_core import models
    from hy_core.plugins import installed

    loaded = []
    monkeypatch.setattr(models, "load", lambda name, *_: loaded.append(name) or tiny.model)
    path = tmp_path / "tone.py"
    path.write_text(PLUGIN)

    def run(*arguments):
        installed.cache_clear()
        small = ("--task", "audio", "--size", "32x32", "--frames", "9", "--steps", "1", "--count", "3")
        result = CliRunner().invoke(command, [*small, "--plugin", str(path), *arguments])
        if isinstance(result.exception, HyError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result, loaded

    yield run
    installed.cache_clear()


def test_any_plugin_that_makes_sound_is_measured_without_a_model(run):
    result, loaded = run("--json", "--option", "level=0")
    summary = json.loads(result.stdout)
    (group,) = summary["groups"]
    assert loaded == [] and summary["model"] is None and summary["options"] == ["level=0"]
    assert group["attributes"]["sound"]["right"] == 0  # all is silent
    assert run("--json")[0] and "real renders" in run()[0].stdout


def test_generated_clips_get_sound_too(run):
    result, loaded = run("--json", "--generated")
    (group,) = json.loads(result.stdout)["groups"]
    assert loaded == ["pocket"] and group["generated"] and group["count"] == 3
    assert group["attributes"]["sound"]["right"] == group["attributes"]["sound"]["total"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--option", "level=loud"), "--option level: 'loud' isn't a number"),
        (("--option", "levle=0.2"), "no option 'levle'"),
        (("--option", "level"), "NAME=VALUE"),
        (("--option", "mute=yes"), "made no sound"),
        (("--task", "t2v", "--plugin", "", "--option", "a=1"), "uses no plugin"),
        (("--task", "i2v", "--generated"), "takes no others"),
    ],
)
def test_what_is_wrong_is_one_line(run, arguments, message):
    with pytest.raises(HyError, match=message):
        run(*arguments)


def test_options_have_their_own_types():
    assert plugin_options(Oracle, ["shift=3", "late=0.5"]) == {"shift": 3, "late": 0.5}
    with pytest.raises(UsageError, match="did you mean|no option"):
        plugin_options(Oracle, ["latte=3"])
