"""Flags, environment, files, presets, the model: the stronger one wins, and every value has its origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hy_core import settings
from hy_core.errors import MissingError, UsageError
from hy_core.options import option
from hy_core.plugins import Plugins
from hy_core.settings import Layer, Settings
from hy_core.tables import parse_toml

DEFAULTS = {
    **{"width": 64, "height": 48, "frames": 17, "fps": 8.0, "steps": 20},
    **{"guidance": None, "cfg": 3.0, "shift": None, "negative": ""},
}


@dataclass(frozen=True)
class Dawn:
    curve: str = option("0,1", help="Brightness.")
    image: Path | None = option(None, help="A picture.")
    many: tuple[Path, ...] = option((), help="Pictures.")


def layers(tmp_path: Path) -> dict[str, Layer]:
    file = tmp_path / "run.toml"
    file.write_text("steps = 3\nfps = 6\n[dawn]\ncurve = 'file'\n")
    preset = tmp_path / "preset.toml"
    preset.write_text("steps = 4\nfps = 5\ncfg = 2\nshift = 4.5\n[dawn]\ncurve = 'preset'\n")
    user = tmp_path / "config.toml"
    user.write_text("steps = 5\nfps = 5\ncfg = 1\nshift = 5\nnegative = 'blur'\n[other]\nx = 1\n")
    return {
        "flags": Layer("flags", {"steps": 1}, {"dawn": {"curve": "flag"}}),
        "environment": settings.environment(
            {"dawn": Dawn}, {"HY_STEPS": "2", "HY_FPS": "7", "HY_DAWN_CURVE": "env"}
        ),
        "file": settings.read_file(file),
        "preset": settings.read_file(preset, "preset p"),
        "user": settings.read_file(user, strict=False),
    }


def test_each_layer_is_stronger_than_those_below(tmp_path: Path) -> None:
    every = layers(tmp_path)
    order = list(every)
    found = [Settings([every[name] for name in order[at:]]).core("steps") for at in range(5)]
    assert [one.value for one in found] == [1, 2, 3, 4, 5]
    origins = [one.origin for one in found]
    assert origins[0] == "--steps" and origins[1] == "HY_STEPS" and origins[2].endswith("run.toml")
    assert origins[3] == "preset p" and origins[4].endswith("config.toml")
    curves = [
        Settings([every[name] for name in order[at:]]).options("dawn", Dawn)[0].curve for at in range(5)
    ]
    assert curves == ["flag", "env", "file", "preset", "0,1"]


def test_the_sampler_is_asked_for_or_the_models_own_or_euler() -> None:
    def sampler(asked: dict[str, str], **model: str) -> str:
        return settings.request(Settings([Layer("flags", asked)]), "x", {**DEFAULTS, **model}).sampler

    assert sampler({}) == "euler"
    assert sampler({}, sampler="stochastic") == "stochastic"
    assert sampler({"sampler": "heun"}, sampler="stochastic") == "heun"


def test_layers_merge_key_by_key(tmp_path: Path) -> None:
    merged = Settings(layers(tmp_path).values())
    request = settings.request(merged, "a fox", DEFAULTS)
    assert (request.steps, request.fps, request.cfg, request.shift, request.negative) == (
        1,
        7.0,
        2.0,
        4.5,
        "blur",
    )
    assert (request.width, request.height, request.frames) == (64, 48, 17)  # the model's own


def test_an_unknown_key_is_named_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for text, word, near in (("stesp = 3", "stesp", "steps"), ("[dwan]\ncurve='1'", "dwan", "dawn")):
        file.write_text(text)
        with pytest.raises(UsageError) as caught:
            Settings([settings.read_file(file)]).check({"dawn": Dawn}, ["dawn"])
        assert word in caught.value.message and "run.toml" in caught.value.message
        assert near in caught.value.hint
    file.write_text("[dawn]\ncruve = '1'")
    with pytest.raises(UsageError, match="cruve") as caught:
        Settings([settings.read_file(file)]).check({"dawn": Dawn}, ["dawn"])
    assert "curve" in caught.value.hint


def test_a_table_of_a_plugin_that_is_not_in_use_is_an_error_but_not_in_the_users_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[dawn]\ncurve = '1'")
    with pytest.raises(UsageError, match="not in use"):
        Settings([settings.read_file(file)]).check({}, ["dawn"])
    Settings([settings.read_file(file, strict=False)]).check({}, ["dawn"])


@pytest.mark.parametrize(
    "text", ["steps = ", "fps = 1\nfps = 2", "\x00", "steps = 'many'", "steps = 0", "fps = nan"]
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match="broken.toml") as caught:
        merged = Settings([settings.read_file(file)])
        for key in settings.CORE:
            merged.core(key)
    assert "\n" not in str(caught.value)


def test_paths_mean_the_folder_of_their_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        "output = 'clips/'\nplugins = ['dawn.py', 'i2v']\n[dawn]\nimage = 'fox.png'\nmany = ['a.png', '/b.png']"
    )
    layer = settings.read_file(file)
    merged = Settings([layer])
    made, _ = merged.options("dawn", Dawn)
    assert made.image == tmp_path / "fox.png"
    assert made.many == (tmp_path / "a.png", Path("/b.png"))
    assert merged.core("output").value == f"{tmp_path}/clips/"
    assert layer.plugins == (str(tmp_path / "dawn.py"), "i2v")


def test_a_model_folder_beside_the_file_is_found_and_a_name_stays_a_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "run.toml"
    for name, found in (("mine", str(tmp_path / "mine")), ("pocket", "pocket")):
        file.write_text(f"model = '{name}'")
        assert Settings([settings.read_file(file)]).core("model").value == found


def test_requires_is_checked_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("requires = ['hy-core>=0.0.1']")
    settings.read_file(file)
    for need in ("hy-core>=999", "hy-nothing-like-this>=1"):
        file.write_text(f"requires = ['{need}']")
        with pytest.raises(MissingError) as caught:
            settings.read_file(file)
        assert need in caught.value.message and need in caught.value.hint
    file.write_text("requires = ['!!']")
    with pytest.raises(UsageError):
        settings.read_file(file)


def test_seconds_become_the_nearest_valid_frames() -> None:
    def frames(**core: object) -> int:
        return settings.request(Settings([Layer("flags", core)]), "a", DEFAULTS).frames

    assert frames(seconds=2) == 17  # at 8 frames a second
    assert frames(seconds=0.01) == 1
    assert frames(seconds=5, fps=24) == 121
    assert frames() == 17
    with pytest.raises(UsageError, match="--frames and --seconds"):
        frames(seconds=2, frames=17)


def test_the_stronger_of_frames_and_seconds_wins() -> None:
    strong, weak = Layer("flags", {"seconds": 4}), Layer("run.toml", {"frames": 5})
    assert settings.request(Settings([strong, weak]), "a", DEFAULTS).frames == 33
    strong, weak = Layer("flags", {"frames": 5}), Layer("run.toml", {"seconds": 4})
    assert settings.request(Settings([strong, weak]), "a", DEFAULTS).frames == 5


@pytest.mark.parametrize("text", ["64", "64x", "x64", "64x64x64", "axb", "64,64", ""])
def test_a_size_that_is_none_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(UsageError, match="960x544"):
        settings.parse_size(text)


def test_sizes_are_width_by_height() -> None:
    assert settings.parse_size("960x544") == settings.parse_size("960X544") == (960, 544)


def test_every_shipped_preset_is_read_and_valid() -> None:
    known = Plugins(entries=[]).presets()
    assert {"draft", "540p", "720p"} <= set(known)
    for name in known:
        merged = Settings([settings.preset_layer(name, known)])
        merged.check({}, [])
        settings.request(merged, "a fox", DEFAULTS).validate()
    with pytest.raises(UsageError) as caught:
        settings.preset_layer("drafd", known)
    assert "draft" in caught.value.hint


def test_empty_environment_variables_count_as_unset() -> None:
    assert settings.environment({}, {"HY_STEPS": "", "HY_DEBUG": "1"}).core == {}


def test_a_bad_environment_variable_is_named() -> None:
    with pytest.raises(UsageError, match="HY_STEPS"):
        Settings([settings.environment({}, {"HY_STEPS": "many"})]).core("steps")


def test_hostile_toml_is_refused_quickly() -> None:
    with pytest.raises(UsageError):
        parse_toml("a=" + "[" * 100_000, "deep.toml")
