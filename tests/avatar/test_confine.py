"""Speech and actor change the face alone: the rest of the clip is, to the bit, what it is without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from avatar import small
from avatar.driven import CONFIG, pose_file, weights
from hy_avatar import masks
from hy_avatar.objective import without
from hy_avatar.plugin import Avatar
from hy_core import Request, generate, models
from hy_core.conditioner import encode
from hy_core.errors import ConflictError, PluginError
from hy_core.flow.policy import SamplingPolicy
from hy_core.pipeline import run
from hy_world.tasks import Each

BOX = "0.3,0.3,0.6,0.6"


@pytest.fixture
def options(tiny, tmp_path, face):
    file = weights(tiny, tmp_path / "a.safetensors", replace(CONFIG, area=1.0))
    return {"image": face, "weights": file, "speaker": [BOX], "speech_gate": "off", "pose_fit": False}


@pytest.fixture
def sampled(monkeypatch):
    """The latents of clips [rows, C, F, h, w], as they are decoded."""
    kept, real = [], run.sample
    monkeypatch.setattr(run, "sample", lambda *given: kept.append(real(*given)) or kept[-1])

    def sampled(requests, conditioner, model, rows=1):
        kept.clear()
        for request in requests:
            conditioner.validate(request)
        generate(requests, [conditioner], model, rows=rows)
        return torch.cat(kept)

    return sampled


def open_places(request, size, frames=2):
    """Latents that the face of BOX is in."""
    box = [tuple(float(part) for part in BOX.split(","))]
    drawn = masks.from_boxes(box, request.height, request.width)
    return (masks.to_latent(drawn, *size) > 0.5).expand(frames, -1, -1)


@pytest.mark.parametrize(("sampler", "cfg"), [("euler", 1.0), ("heun", 2.0), ("stochastic", 2.0)])
def test_outside_of_the_face_nothing_changes(tiny, options, sampled, talk, face, tmp_path, sampler, cfg):
    request = replace(tiny.request, cfg=cfg, negative="noise", width=64, height=64, frames=5, sampler=sampler)
    # A square picture, so that the clip shows all of it and BOX is where it says.
    options = {**options, "image": small.portrait(tmp_path / "square.png", 64, 64)}
    body, mime = pose_file(tmp_path / "body.json", 1), pose_file(tmp_path / "mime.json", 2)
    other = small.tone(tmp_path / "other.wav", pitch=900)
    inside = open_places(request, (8, 8))
    assert 0 < inside.float().mean() < 0.5

    class Silent(Avatar):
        name = "avatar"

        def _drivers(self, request, cond):
            feed, faces = super()._drivers(request, cond)
            return without(feed, ["speech", "expression"]), faces

    def clip(kind=Avatar, **more):
        return sampled([request], kind(**{**options, "pose": body, **more}), tiny.model)[0]

    free, freely = clip(speech=[talk]), clip(speech=[other])
    assert (free - freely)[:, ~inside].abs().max() > 0  # it spreads
    one, two = clip(speech=[talk], restrict_to_mask=True), clip(speech=[other], restrict_to_mask=True)
    assert torch.equal(one[:, ~inside], two[:, ~inside])
    assert (one - two)[:, inside].abs().max() > 0
    both = clip(speech=[talk], expression=mime, restrict_to_mask=True)
    silent = clip(Silent, speech=[talk], expression=mime)
    torch.testing.assert_close(both[:, ~inside], silent[:, ~inside], atol=1e-4, rtol=1e-4)
    assert (both - silent)[:, inside].abs().max() > 1e-2


def test_as_the_weights_were_trained(tiny, options, tmp_path, talk):
    def confined(trained, **more):
        file = weights(tiny, tmp_path / "b.safetensors", replace(CONFIG, restrict_to_mask=trained))
        cond = tiny.condition()
        return encode([Avatar(**{**options, "weights": file, **more})], tiny.request, [cond]).restriction

    assert confined(True, speech=[talk]) and not confined(False, speech=[talk])
    assert confined(False, speech=[talk], restrict_to_mask=True) and not confined(
        True, speech=[talk], restrict_to_mask=False
    )
    assert not confined(True)  # no face is driven


def test_clips_go_through_together(tiny, options, sampled, talk, tmp_path):
    """As rows of one batch, each with its own mask, they are what they are alone."""
    requests = [
        replace(tiny.request, width=64, height=64, frames=5, cfg=2.0, negative="x", seed=s) for s in (1, 2)
    ]
    boxes = [["0.1,0.1,0.4,0.5"], ["0.5,0.4,0.9,0.9"]]
    own = [Avatar(**{**options, "speaker": box}, speech=[talk], restrict_to_mask=True) for box in boxes]
    both = sampled(requests, Each({1: own[0], 2: own[1]}), tiny.model, rows=2)
    alone = [sampled([request], one, tiny.model)[0] for request, one in zip(requests, own, strict=True)]
    torch.testing.assert_close(both, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_a_released_model_too(released_folder, sampled, face, talk, tmp_path):
    request = Request(
        "x", negative="y", width=64, height=64, frames=5, fps=25, steps=2, cfg=7.5, model=str(released_folder)
    )
    model = models.load(str(released_folder), conditioners=[Avatar(image=face)])
    other = small.tone(tmp_path / "other.wav", pitch=900)

    def clip(speech):
        given = {"image": face, "speaker": [BOX], "area": 1.0, "speech_gate": "off", "restrict_to_mask": True}
        return sampled([request], Avatar(**given, speech=[speech]), model)[0]

    one, two = clip(talk), clip(other)
    same = (one == two).all(0)
    assert 0 < same.float().mean() < 1


def test_two_that_confine_and_masks_that_don_t_fit(tiny):
    policy, cond = SamplingPolicy(), tiny.condition()
    policy.restrict_to_mask("avatar", cond, torch.ones(1, 1, 3, 4, 4), {})
    with pytest.raises(ConflictError, match="avatar and other both set the run's mask restriction"):
        policy.restrict_to_mask("other", cond, torch.ones(1, 1, 3, 4, 4), {})
    with pytest.raises(PluginError, match="avatar: restrict_to_mask takes a mask"):
        policy.restrict_to_mask("avatar", cond, torch.ones(1, 1, 3, 2, 2), {})
