"""Scalar controls: their embedding, and the labels that training gives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hy_avatar import controls
from hy_avatar.config import AvatarConfig
from hy_avatar.controls import Controls, expression_bucket, head_bucket
from hy_avatar.objective import Dropout, drop, loss_weights
from hy_core.dit.layers import sinusoid
from hy_core.testing.tiny import randomised
from hypothesis import given
from hypothesis import strategies as st

EYES = 60.0
FACE = np.random.default_rng(0).normal(0, 40, (68, 2))


def head(frames=50, turn=0.0, size=1.0, shift=(0.0, 0.0)):
    """A face that turns, grows and moves without a change of expression."""
    t = np.linspace(0, 2 * np.pi, frames)
    angle, scale = turn * np.sin(t), 1 + (size - 1) * np.sin(t)
    spin = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    way = np.sin(t)[:, None, None] * np.asarray(shift)
    return scale[:, None, None] * (FACE @ spin.swapaxes(1, 2)) + way + 200


def test_untrained_they_change_nothing_and_trained_they_do():
    module, vec = Controls(16), torch.randn(2, 3, 16)
    feed = controls.inputs(25, 30, 24)
    assert torch.equal(module(vec, feed), vec)
    randomised(module, 0)
    one = module(vec, feed)
    assert not torch.equal(one, vec)
    assert torch.allclose(one - vec, (one - vec)[:1, :1].expand_as(vec), atol=1e-6)  # the same for all frames
    for other in (controls.inputs(40, 30, 24), controls.inputs(25, 60, 24), controls.inputs(25, 30, 12)):
        assert not torch.allclose(module(vec, other), one)
    assert torch.equal(module(vec, {}), vec)


def test_the_form_of_the_embedding():
    """Four numbers, each embedded to a quarter of the width, side by side; cosines first."""
    module = randomised(Controls(16), 1)
    feed = {
        "motion_head": torch.tensor([[1.0, 2, 3, 4]]),
        "motion_expression": torch.zeros(1, 4),
        "fps": torch.ones(1),
    }
    change = module(torch.zeros(1, 1, 16), feed)[0, 0]
    parts = torch.cat([module.motion_head.mlp(sinusoid(torch.tensor(float(n)))) for n in (1, 2, 3, 4)])
    rest = module.motion_expression(torch.zeros(4)).flatten() + module.fps(torch.ones(()))
    assert torch.allclose(change, parts + rest, atol=1e-5)
    assert sinusoid(torch.zeros(()))[:128].eq(1).all()


def test_a_head_that_is_still_has_no_motion():
    assert head_bucket(head()[:, 30], EYES) == 0
    assert expression_bucket(head(), EYES) == 0


def test_head_motion_by_hand():
    """A nose that swings by a tenth of the eyes' distance: its deviation is that over the root of two."""
    t = np.linspace(0, 2 * np.pi, 1001)[:-1]
    nose = np.stack([0.1 * EYES * np.sin(t), np.zeros(1000)], -1)
    wanted = round(100 * 0.1 / np.sqrt(2) / controls.HEAD_FULL)
    assert head_bucket(nose, EYES) == wanted == 14
    assert head_bucket(nose * 100, EYES) == 100
    assert head_bucket(nose * 3, EYES * 3) == wanted  # a larger picture of the same head


@given(st.floats(-0.4, 0.4), st.floats(0.8, 1.25), st.floats(-60, 60), st.floats(-60, 60))
def test_the_head_s_motion_is_not_the_face_s(turn, size, x, y):
    assert expression_bucket(head(turn=turn, size=size, shift=(x, y)), EYES) == 0


def test_a_mouth_that_opens_is_the_face_s_motion():
    def talking(open_):
        points = head(turn=0.2, shift=(20, 5))
        points[:, 48:68, 1] += open_ * np.sin(np.linspace(0, 12, len(points)))[:, None] ** 2
        return expression_bucket(points, EYES)

    assert 0 < talking(3) < talking(10) < talking(20) <= 100


def test_frames_without_a_face_are_left_out():
    nose, points = head(shift=(30, 0))[:, 30], head(shift=(30, 0))
    points[:, 50, 1] += np.linspace(0, 5, 50)
    wanted = head_bucket(nose[10:], EYES), expression_bucket(points[10:], EYES)
    nose[:10], points[:10] = np.nan, np.nan
    assert (head_bucket(nose, EYES), expression_bucket(points, EYES)) == wanted
    assert head_bucket(nose[:10], EYES) == expression_bucket(points[:10], EYES) == 0
    assert head_bucket(nose, np.nan) == 0


# -- the objective -------------------------------------------------------------------------------------------


def test_the_face_counts_more_and_the_lips_most():
    face, lips = torch.tensor([0.0, 1, 1]), torch.tensor([0.0, 0, 1])
    assert loss_weights(face, lips).tolist() == [1, 2, 4]
    assert loss_weights(face).tolist() == [1, 2, 2] and loss_weights().tolist() == [1]


DRIVERS = AvatarConfig().guided


def test_conditions_are_left_out_as_often_as_asked():
    generator = torch.Generator().manual_seed(0)
    lost = Dropout().draw(["words"] * 200_000, generator, DRIVERS)
    for name, share in (("speech", 0.1), ("pose", 0.1), ("reference", 0.05)):
        assert lost[name].float().mean().item() == pytest.approx(share, abs=0.003)
    assert (lost["speech"] & lost["pose"]).float().mean().item() == pytest.approx(0.01, abs=0.002)
    bare = Dropout(0, 0, 0, 0, 0.5).draw(["", "words"] * 50_000, generator, DRIVERS)
    assert torch.equal(bare["speech"], bare["pose"]) and not bare["speech"][1::2].any()
    assert bare["speech"][::2].float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert not bare["reference"].any()
    bare = Dropout(0, 0, 0, 0, 0.5).draw(["", "words"] * 50, generator, (*DRIVERS, "reference"))
    assert bare["pose"].any() and torch.equal(bare["reference"], bare["pose"])


def test_what_is_left_out_is_zero_in_its_rows_only():
    feed = {
        "frames": 2,
        "speech": {"features": torch.ones(3, 1, 5, 2), "mask": torch.ones(3, 1, 2, 4, 1)},
        "reference": torch.ones(3, 4, 2, 2, 2),
    }
    rows = torch.tensor([True, False, True])
    lost = {"speech": rows, "reference": ~rows, "expression": rows, "pose": rows}
    found = drop(feed, lost)
    assert found["speech"]["features"].flatten(1).amax(1).tolist() == [0, 1, 0]
    assert found["reference"].flatten(1).amax(1).tolist() == [1, 0, 1]
    assert feed["speech"]["features"].min() == 1
    assert found["speech"]["mask"] is feed["speech"]["mask"]
