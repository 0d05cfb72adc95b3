"""`hy eval world`, from the command line through the pipeline to the table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hy_core.errors import UsageError
from hy_world.evaluate import command

SMALL = ("--size", "32x32", "--frames", "9", "--steps", "1", "--count", "2")


@pytest.fixture
def run(tiny, monkeypatch):
    """Run the command with a tiny model in place of the one that `--model` names."""
    from hy_core import models

    monkeypatch.setattr(models, "load", lambda name, *_: tiny.model)

    def run(*arguments):
        result = CliRunner().invoke(command, arguments)
        if isinstance(result.exception, UsageError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def test_every_attribute_comes_with_chance_and_real_renders(run, tiny):
    result = run(*SMALL, "--json")
    summary = json.loads(result.stdout)
    assert [group["group"] for group in summary["groups"]] == ["combinations", "wordings"]
    for group in summary["groups"]:
        assert group["count"] == 2
        for name, line in group["attributes"].items():
            assert line["total"] >= 1 and line["right"] <= line["total"], name
            assert line["interval"][0] <= line["accuracy"] <= line["interval"][1]
    assert set(summary["groups"][0]["attributes"]) == {
        *("colour", "shape", "size", "motion", "background", "alone", "all")
    }
    assert "making clips" in result.stderr
    assert {name: summary[name] for name in ("steps", "cfg", "sampler", "shift")} == {
        **{"steps": 1, "cfg": tiny.model.defaults.cfg},
        **{"sampler": tiny.model.defaults.sampler, "shift": tiny.model.defaults.shift},
    }
    assert json.loads(run(*SMALL, "--cfg", "2.5", "--json").stdout)["cfg"] == 2.5


def test_a_table_is_printed(run):
    text = run(*SMALL, "--group", "train").stdout
    assert "training prompts: 2 clips" in text and "by chance" in text and "background" in text


def test_the_same_seed_makes_the_same_clips_in_any_batch(run, tmp_path):
    from PIL import Image

    sheets = []
    for index, batch in enumerate(("1", "2")):
        path = tmp_path / f"{index}.png"
        run(*SMALL, "--group", "train", "--contact-sheet", str(path), "--batch-size", batch)
        sheets.append(np.asarray(Image.open(path)).astype(int))
    assert np.abs(sheets[0] - sheets[1]).max() <= 1
    assert sheets[0].std() > 5


def test_pictures_and_two_things(run):
    picture = json.loads(run(*SMALL, "--frames", "1", "--group", "combinations", "--json").stdout)
    assert "motion" not in picture["groups"][0]["attributes"]
    pair = json.loads(run(*SMALL, "--objects", "2", "--group", "combinations", "--json").stdout)
    assert pair["groups"][0]["attributes"]["colour"]["total"] == 4


def test_the_codec_is_judged_alone(run, tmp_path):
    film = tmp_path / "clips.gif"
    summary = json.loads(run("--codec", "--count", "2", "--json", "--gif", str(film)).stdout)
    (group,) = summary["groups"]
    assert group["group"] == "codec" and 0 < group["psnr"] < 30
    from PIL import Image

    assert Image.open(film).n_frames == 17


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--frames", "16"), "frames must be 4k"),
        (("--frames", "5"), "too few"),
        (("--codec", "--group", "train"), "takes no prompts"),
        (("--vae", __file__), "goes with --codec"),
        (("--task", "i2v", "--frames", "1"), "--task i2v --frames 1: at least 9"),
        (("--task", "i2v", "--codec"), "two things to measure"),
        (("--plugin", "i2v"), "the task t2v uses none"),
        (("--contact-sheet", "sheet.txt"), "no writer"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(run, arguments, problem):
    with pytest.raises(UsageError, match=problem):
        run(*arguments)


def test_a_size_must_be_one():
    for size, problem in (("64", "not WIDTHxHEIGHT"), ("60x64", "multiples of 16")):
        result = CliRunner().invoke(command, ["--size", size])
        assert result.exit_code == 2 and problem in result.output
