"""Weights of ours for the built-in model: found without an option, unless something else is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from avatar import small
from avatar.driven import CONFIG, drivers, weights
from hy_avatar import model_files
from hy_avatar.config import AvatarConfig
from hy_avatar.plugin import Avatar
from hy_core import generate, models
from hy_core.dit import DiT
from hy_core.errors import MissingError
from hy_core.testing.tiny import Tiny, randomised

BOX = "0.3,0.3,0.7,0.7"


@pytest.fixture
def shipped(tiny, tmp_path, monkeypatch):
    """Weights that are shipped, and a built-in model that they are for."""
    monkeypatch.setattr(model_files, "POCKET", tmp_path / "builtin")
    monkeypatch.setattr(model_files, "SHIPPED", weights(tiny, tmp_path / "shipped.safetensors"))
    (tmp_path / "builtin").mkdir()
    return replace(tiny.model, folder=tmp_path / "builtin")


def test_the_built_in_model_needs_no_option(tiny, shipped, face, talk):
    def clip(model, **more):
        avatar = Avatar(image=face, speech=[talk], speaker=[BOX], speech_gate="off", **more)
        avatar.validate(tiny.request)
        return generate(tiny.request, [avatar], model=model).frames.astype(int)

    assert np.array_equal(clip(shipped), clip(tiny.model, weights=model_files.SHIPPED))
    assert np.abs(clip(shipped) - clip(shipped, strength=0.0)).max() > 0


def test_other_models_have_none_and_other_weights_go_first(tiny, shipped, face, tmp_path):
    """Nor are they there where the package was installed without them."""
    avatar, home = Avatar(image=face), shipped.folder
    assert avatar.files(home).weights == model_files.SHIPPED
    assert avatar.files(tmp_path).weights is None and avatar.files(None).weights is None
    other = weights(tiny, tmp_path / "other.safetensors")
    assert Avatar(image=face, weights=other).files(home).weights == other
    beside = weights(tiny, home / "avatar.safetensors")
    assert avatar.files(home).weights == beside
    beside.unlink()
    model_files.SHIPPED.unlink()
    with pytest.raises(MissingError, match="no avatar in it, and no --avatar-weights"):
        generate(tiny.request, [avatar], model=shipped)


def test_training_begins_with_what_the_recipe_says(tiny, shipped, face):
    """Not with the shipped weights: only with some that lie beside the model that it starts from."""
    learner = Avatar()
    config = AvatarConfig(speech=CONFIG.speech, fix_first_frame=True)
    table = {"config": config.to_json(), "fix_first_frame": 1.0}
    learner.attach_for_training(tiny.dit, table, shipped.folder)
    assert learner.weights(shipped.folder) is None and learner._builder.config == config


def test_training_that_goes_on_may_ask_anew(tiny, shipped):
    """What is attached stays; how a run is asked for can be said again."""
    weights(tiny, shipped.folder / "avatar.safetensors")

    def learned(**table):
        learner = Avatar()
        learner.attach_for_training(Tiny().dit, {"config": table} if table else {}, shipped.folder)
        return learner._builder.config

    modules = {name: value for name, value in CONFIG.to_json().items() if name != "area"}
    assert learned() == learned(**modules) == CONFIG
    assert learned(**modules | {"restrict_to_mask": True, "area": 1.0}) == replace(
        CONFIG, restrict_to_mask=True, area=1.0
    )


def test_the_command(hy, tmp_path, monkeypatch, talk):
    """The built-in model itself, with weights that are random: no option names model or weights."""
    card = models.find("pocket")
    if not card.dit.exists():
        pytest.skip("needs pocket's weights")
    holder = Tiny()
    holder.dit = randomised(DiT(models.configs(card)[0]), 0)
    config = replace(CONFIG, expression=None, pose="none")
    monkeypatch.setattr(model_files, "SHIPPED", weights(holder, tmp_path / "shipped.safetensors", config))
    out = tmp_path / "talk.mp4"
    run = hy(
        "generate", "a person talks to the camera", "-p", "avatar", "--avatar-speech", talk,
        "--avatar-image", small.portrait(tmp_path / "face.png"), "--avatar-restrict-to-mask", "--steps", "1", "-o", out,
    )  # fmt: skip
    assert run.exit_code == 0, run.stderr
    from hy_core import media

    clip = media.read(out)
    assert clip.frames.shape == (9, 64, 64, 3) and clip.sound is not None


def test_without_a_face_detector_all_of_the_picture_is_driven(tiny, options_, monkeypatch, caplog):
    def missing():
        raise MissingError("this needs MediaPipe", "pip install it")

    monkeypatch.setattr("hy_avatar.faces.detector", missing)
    assert drivers(Avatar(**options_), tiny.request).faces() == [(0.0, 0.0, 1.0, 1.0)]
    assert "pip install it" in caplog.text
    for more in ({"speaker": ["largest"]}, {"speech": options_["speech"] * 2}):
        with pytest.raises(MissingError):
            drivers(Avatar(**(options_ | more)), tiny.request).faces()


@pytest.fixture
def options_(face, talk):
    return {"image": face, "speech": [talk]}
