"""i2v as a plugin: the contract, its place among others, the command line, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_core import Conditioner, Plugins, generate, media
from hy_core.errors import ConflictError, UsageError
from hy_core.testing.batch import small_batch
from hy_i2v.plugin import I2V

PACKAGE = Path(__file__).parents[2] / "packages" / "hy-i2v"


@pytest.mark.parametrize("more", [{}, {"stability": True}, {"loop": True}, {"extend": 1}])
def test_contract(contract, ball, more):
    contract(I2V, image=ball, **more)


def test_it_is_registered_under_its_name():
    plugins = Plugins()
    assert plugins.conditioners(["i2v"])["i2v"] is I2V and I2V.name == "i2v"
    assert {"i2v-stable", "i2v-dynamic"} <= set(plugins.presets())


def test_it_needs_nothing_but_the_core_and_what_that_brings():
    def needs(package: Path) -> set[str]:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        return {name.split(">")[0] for name in project["dependencies"]}

    assert "hy-core" in needs(PACKAGE)
    assert needs(PACKAGE) - {"hy-core"} < needs(PACKAGE.parent / "hy-core")


def test_its_module_imports_nothing_heavy():
    code = (
        "import sys, hy_i2v.plugin; print([n for n in ('torch', 'numpy', 'PIL', 'av') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Together with others


class Words(Conditioner):
    """Adds words, and a frame to look at."""

    def encode(self, request, cond):
        generator = torch.Generator().manual_seed(1)
        cond.add_text(self.name, torch.randn(2, cond.text[0].shape[1], generator=generator))
        cond.add_context(self.name, torch.randn(1, 16, 1, *cond.size, generator=generator), [-1.0])


class Ends(Conditioner):
    """Gives the last frame."""

    def encode(self, request, cond):
        cond.fix_frames(self.name, [-1], torch.zeros(1, 16, 1, *cond.size))


def test_any_order_gives_the_same_clip(tiny, ball):
    found = [
        generate(tiny.request, order, model=tiny.model).frames.astype(int)
        for order in (
            [I2V(image=ball, stability=True), Words(), Ends()],
            [Ends(), Words(), I2V(image=ball, stability=True)],
        )
    ]
    assert np.abs(found[0] - found[1]).max() <= 1
    without = generate(tiny.request, [Words(), Ends()], model=tiny.model).frames.astype(int)
    assert np.abs(found[0] - without).max() > 3


@pytest.mark.parametrize("order", [0, 1])
def test_the_same_frame_from_two_is_a_conflict_in_any_order(tiny, ball, blue, order):
    both = [I2V(image=ball, last=blue), Ends()]
    with pytest.raises(ConflictError) as caught:
        generate(tiny.request, both[::-1] if order else both, model=tiny.model)
    assert "i2v" in caught.value.message and "ends" in caught.value.message and "2" in caught.value.message


# On the command line


def test_a_clip_from_pocket_starts_from_the_picture(hy, ball, tmp_path):
    """The whole way with the shipped weights; its first frame is what the codec alone makes of the picture."""
    from hy_core import models
    from hy_i2v import pictures
    from hy_i2v.latents import encode_clip, to_pixels

    run = hy(
        "generate", "it bounces", "-p", "i2v", "--i2v-image", ball, "--steps", "2", "--seed", "1",
        "-o", tmp_path / "%03d.png", "--json",
    )  # fmt: skip
    assert run.exit_code == 0, run.stderr
    described = json.loads(run.stdout)
    assert described["versions"]["hy-i2v"] == version("hy-i2v")
    assert (
        described["request"]["options"]["i2v"]["image"] == str(ball) and described["request"]["width"] == 64
    )
    made = np.stack([np.asarray(media.read_picture(path)) for path in described["paths"]]).astype(float)
    assert made.shape == (17, 64, 64, 3)
    wanted = np.asarray(pictures.resize(pictures.open_picture(ball, "x"), 64, 64, "crop")).astype(float)
    vae = models.load("pocket").vae
    latent = encode_clip(vae, to_pixels(wanted[None].astype(np.uint8), vae))
    with torch.no_grad():
        alone = vae.decode(vae.from_model(latent))[0, :, 0].permute(1, 2, 0).numpy()
    errors = [
        np.square(frame - wanted).mean() for frame in ((alone.clip(-1, 1) + 1) * 127.5, made[0], made[8])
    ]
    assert errors[0] < 1000 and errors[1] < 2 * errors[0] + 30


def test_mistakes_are_one_line_before_anything_is_loaded(hy, ball, tmp_path):
    for words, said in (
        (("-p", "i2v"), "i2v: no picture and no clip is given"),
        (("--i2v-image", tmp_path / "no.png"), "no such file"),
        (("--i2v-image", ball, "--i2v-overlap", "4"), "--i2v-overlap: must be 4k+1"),
        (("--i2v-keyframes", ball), "--i2v-keyframes: "),
    ):
        run = hy("generate", "it bounces", *words)
        assert run.exit_code in (2, 3) and run.stderr.startswith("Error: ") and said in run.stderr
        assert len(run.stderr.strip().splitlines()) <= 2


def test_a_picture_in_a_settings_file_lies_beside_it(hy, ball, tmp_path):
    (tmp_path / "hy.toml").write_text('plugins = ["i2v"]\n[i2v]\nkeyframes = ["0=ball.png", "8=ball.png"]\n')
    run = hy("generate", "it bounces", "-c", tmp_path / "hy.toml", "--dry-run")
    assert run.exit_code == 0, run.stderr


def training(tiny, latents, generator, **shares):
    """A training batch of these latents, with shares of fixed frames; those that aren't given are 0."""
    none = dict.fromkeys(("first_frame", "first_and_last_frame", "first_half"), 0.0)
    batch = small_batch(tiny, rows=len(latents))
    return replace(batch, latents=latents, generator=generator, settings={"i2v": {**none, **shares}})


def test_training_goes_through_the_same_pins(tiny):
    cond, generator = tiny.condition(), torch.Generator().manual_seed(0)
    latents = tiny.latents()
    batch = training(tiny, latents, generator, first_frame=1.0)
    I2V(image=Path("unused")).training_condition(batch, cond)
    assert list(cond.fixed_frames) == [0] and cond.fixed_frames[0].owner == "i2v"


def test_training_fills_the_channels_of_a_network_that_takes_a_picture_so(tiny):
    """The first latent beside the noise in the share of batches that are given frames, and nothing in the others."""
    latents, use = tiny.latents(rows=2), tiny.condition(rows=2)
    use.condition_channels = 17
    I2V(image=Path("unused")).fix_latents(use, {0: latents[:, :, :1]})
    for share, filled in ((1.0, True), (0.0, False)):
        cond = tiny.condition(rows=2)
        cond.condition_channels = 17
        batch = training(tiny, latents, torch.Generator().manual_seed(0), first_and_last_frame=share)
        I2V(image=Path("unused")).training_condition(batch, cond)
        assert not cond.fixed_frames and (cond.channel_condition is not None) == filled
        assert not filled or torch.equal(cond.channel_condition, use.channel_condition)


def test_in_training_two_latent_frames_are_never_both_given(tiny):
    short = tiny.condition(replace(tiny.request, frames=5))
    latents = tiny.latents(replace(tiny.request, frames=5))
    batch = training(tiny, latents, torch.Generator().manual_seed(0), first_and_last_frame=1.0)
    I2V(image=Path("unused")).training_condition(batch, short)
    assert not short.fixed_frames


@pytest.mark.parametrize(
    "settings",
    [
        {"first_frame": 0.9, "first_and_last_frame": 0.2},
        {"max_noise_time": 1.0},
        {"image_dropout": 1.5},
        {"frist_frame": 0.1},
    ],
)
def test_in_training_shares_that_cannot_be_are_named(tiny, settings):
    batch = replace(small_batch(tiny, rows=1), settings={"i2v": settings})
    with pytest.raises(UsageError, match="conditioning.i2v"):
        I2V(image=Path("unused")).training_condition(batch, tiny.condition())
