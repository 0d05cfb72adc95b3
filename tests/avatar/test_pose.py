"""Poses are followed, stored, calmed, filled and retargeted; skeletons are drawn as DWPose draws them."""

from __future__ import annotations

import numpy as np
import pytest
from hy_avatar import pose, pose_motion, skeleton
from hy_avatar.pose import PoseTrack
from hy_core.errors import HyError, MissingError, UsageError

STANDING = {
    0: (0.5, 0.15), 1: (0.5, 0.3), 2: (0.42, 0.3), 3: (0.38, 0.42), 4: (0.36, 0.54), 5: (0.58, 0.3), 6: (0.62, 0.42),
    7: (0.64, 0.54), 8: (0.46, 0.55), 9: (0.46, 0.72), 10: (0.46, 0.9), 11: (0.54, 0.55), 12: (0.54, 0.72),
    13: (0.54, 0.9), 14: (0.48, 0.13), 15: (0.52, 0.13), 16: (0.46, 0.14), 17: (0.54, 0.14),
}  # fmt: skip


def person():
    points = np.full((134, 2), np.nan)
    for joint, place in STANDING.items():
        points[joint] = place
    return points


def clip(frames=9, people=1, fps=8.0):
    points = np.tile(person(), (frames, people, 1, 1))
    points[..., 0] += 0.01 * np.arange(frames)[:, None, None]
    return PoseTrack(points, np.where(np.isfinite(points[..., 0]), 0.9, 0.0), fps, 1.0)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_pose_file_comes_back(tmp_path, suffix):
    track = clip(people=2)
    track.points[3, 1] = np.nan
    pose.save(tmp_path / f"p{suffix}", track)
    again = pose.load(tmp_path / f"p{suffix}")
    np.testing.assert_allclose(again.points, track.points, atol=1e-5)
    assert again.fps == track.fps and again.aspect == track.aspect and again.people == 2


@pytest.mark.parametrize(
    "held",
    [
        "", "[]", "{}", '{"format": "hy-pose", "version": 1}',
        '{"format": "hy-pose", "version": 1, "fps": 8, "aspect": 1, "frames": [[[1, 2]]]}',
        '{"format": "hy-pose", "version": 1, "fps": 0, "aspect": 1, "frames": []}',
        '{"format": "hy-pose", "version": 1, "fps": 8, "aspect": 1, "frames": [[]]}',
    ],
)  # fmt: skip
def test_damaged_json_is_one_line(tmp_path, held):
    (tmp_path / "p.json").write_text(held)
    with pytest.raises(HyError):
        pose.load(tmp_path / "p.json")


def test_other_files_are_one_line(tmp_path):
    (tmp_path / "p.npz").write_bytes(b"PK not a zip")
    with pytest.raises(HyError):
        pose.load(tmp_path / "p.npz")
    with pytest.raises(MissingError):
        pose.load(tmp_path / "none.json")
    with pytest.raises(UsageError, match="no pose file"):
        pose.load(tmp_path / "dance.mp4")
    nowhere = clip(2)
    nowhere.points[:] = np.inf
    pose.save(tmp_path / "inf.npz", nowhere)
    with pytest.raises(HyError, match="no person"):
        pose.load(tmp_path / "inf.npz")


def test_people_keep_their_place_when_the_detector_swaps_them():
    rng = np.random.default_rng(0)
    base = rng.uniform(20, 80, (133, 2))
    found = []
    for k in range(8):
        pair = np.stack([base + [2 * k, 0], base + [200 - 2 * k, 0]])
        if k % 2:
            pair = pair[::-1]
        found.append((pair, np.full((2, 133), 0.9)))
    found[4] = (found[4][0][:1], found[4][1][:1])
    track = pose.from_detections(found, 100, 400, 25)
    assert track.people == 2 and track.aspect == 4
    left = track.points[:, 0, 0, 0] * 400
    np.testing.assert_allclose(left[np.isfinite(left)], (base[0, 0] + 2 * np.arange(8))[np.isfinite(left)])


def test_gaps_are_bridged_and_long_ones_left():
    track = clip(30)
    track.points[5:8, 0, 4] = np.nan
    track.points[10:25, 0, 7] = np.nan
    filled = pose_motion.fill(track, most=4).points
    np.testing.assert_allclose(filled[:, 0, 4, 0], 0.36 + 0.01 * np.arange(30))
    assert np.isnan(filled[10:25, 0, 7]).all() and np.isnan(filled[:, 0, 30]).all()


def test_smoothing_calms_without_inventing():
    rng = np.random.default_rng(1)
    track = clip(40)
    track.points[:] += rng.normal(0, 0.01, track.points.shape)
    track.points[7, 0, 4] = np.nan
    calm = pose_motion.smooth(track, 2.0)
    assert np.isnan(calm.points[7, 0, 4]).all()
    rough = np.diff(track.points[:, 0, 0, 1]).std()
    assert np.diff(calm.points[:, 0, 0, 1]).std() < 0.3 * rough
    assert pose_motion.smooth(track, 0) is track


def test_resampling_keeps_the_time():
    faster = pose_motion.resample(clip(9, fps=8), 17, 16)
    np.testing.assert_allclose(faster.points[:, 0, 0, 0], 0.5 + 0.005 * np.arange(17), atol=1e-9)
    longer = pose_motion.resample(clip(9, fps=8), 20, 8)
    np.testing.assert_allclose(longer.points[-1], longer.points[8])


def test_retargeting_gives_the_references_limbs_and_the_drivers_angles():
    driver = clip(9)
    angle = np.linspace(0, 2, 9)
    driver.points[:, 0, 3] = driver.points[:, 0, 2] + 0.12 * np.stack([np.cos(angle), np.sin(angle)], 1)
    driver.points[:, 0, 4] = driver.points[:, 0, 3] + 0.1 * np.stack([np.cos(-angle), np.sin(-angle)], 1)
    reference = person() * 0.5 + 0.1  # half as large, elsewhere
    reference[3] = reference[2] + [0, 0.1]
    reference[4] = reference[3] + [0, 0.04]
    made = pose_motion.retarget(driver, reference).points[:, 0]
    np.testing.assert_allclose(made[0, 1], reference[1])
    for parent, joint in ((1, 2), (2, 3), (3, 4), (8, 9), (1, 11)):
        wanted = np.linalg.norm(reference[joint] - reference[parent])
        np.testing.assert_allclose(
            np.linalg.norm(made[:, joint] - made[:, parent], axis=1), wanted, rtol=1e-6
        )
        one, other = (
            made[:, joint] - made[:, parent],
            driver.points[:, 0, joint] - driver.points[:, 0, parent],
        )
        np.testing.assert_allclose(one[:, 0] * other[:, 1], one[:, 1] * other[:, 0], atol=1e-9)
    np.testing.assert_allclose(np.ptp(made[:, 1, 0]), 0.5 * 0.08, rtol=0.3)  # the way, in proportion


def test_retargeting_onto_itself_changes_nothing_and_missing_limbs_take_their_mirrors():
    driver = clip(1)
    made = pose_motion.retarget(driver, driver.points[0, 0])
    np.testing.assert_allclose(made.points, driver.points, atol=1e-9)
    reference = person() * [1, 2]
    reference[[6, 7]] = np.nan
    made = pose_motion.retarget(driver, reference).points[0, 0]
    right, left = (np.linalg.norm(made[b] - made[a]) for a, b in ((2, 3), (5, 6)))
    assert right == pytest.approx(left)
    with pytest.raises(UsageError, match="neck"):
        pose_motion.retarget(driver, np.full((134, 2), np.nan))


# -- drawing ----------------------------------------------------------------------------------------------

pytest.importorskip("cv2", reason="OpenCV draws skeletons and is not installed")


def test_a_limb_is_a_dimmed_ellipse_with_bright_joints():
    points = np.full((1, 1, 134, 2), np.nan)
    points[0, 0, 2], points[0, 0, 3] = (0.25, 0.5), (0.75, 0.5)
    picture = skeleton.draw(PoseTrack(points, np.ones((1, 1, 134)), 1.0, 1.0), 256, 256)[0]
    assert tuple(picture[128, 128]) == tuple(int(0.6 * part) for part in skeleton.COLOURS[2])
    assert tuple(picture[128, 64]) == skeleton.COLOURS[2] and tuple(picture[128, 192]) == skeleton.COLOURS[3]
    column = np.flatnonzero(picture[:, 128].any(-1))
    assert column.min() == 124 and column.max() == 132  # half width 4
    row = np.flatnonzero(picture[128].any(-1))
    assert row.min() == 60 and row.max() == 196  # joints of radius 4 at both ends


def test_face_dots_and_hands():
    points = np.full((1, 1, 134, 2), np.nan)
    points[0, 0, 24] = (0.25, 0.25)
    points[0, 0, 92], points[0, 0, 93] = (0.5, 0.5), (0.75, 0.5)
    track = PoseTrack(points, np.ones((1, 1, 134)), 1.0, 1.0)
    picture = skeleton.draw(track, 128, 128)[0]
    assert tuple(picture[32, 32]) == (255, 255, 255) and tuple(picture[35, 32]) == (255, 255, 255)
    assert not picture[36, 32].any()
    assert tuple(picture[64, 64]) == (0, 0, 255)  # hand joints are blue
    assert tuple(picture[64, 80]) == (255, 0, 0)  # the first edge has hue 0
    assert not skeleton.draw(track, 128, 128, face=False, hands=False).any()


def test_seventeen_limbs_in_their_colours_and_missing_ones_left_out():
    track = clip(1)
    assert len(skeleton.LIMBS) == 17 and len(skeleton.COLOURS) == 18 and len(skeleton.HAND_EDGES) == 20
    whole = skeleton.draw(track, 512, 512)[0]
    colours = {tuple(colour) for colour in whole.reshape(-1, 3)}
    assert set(skeleton.COLOURS) <= colours
    for a, b in ((8, 9), (11, 12)):
        x, y = ((track.points[0, 0, a] + track.points[0, 0, b]) / 2 * 512).astype(int)
        index = skeleton.LIMBS.index((a, b))
        assert tuple(whole[y, x]) == tuple(int(0.6 * part) for part in skeleton.COLOURS[index])
    track.points[0, 0, 9] = np.nan
    fewer = skeleton.draw(track, 512, 512)[0]
    x, y = (np.array([0.46, 0.635]) * 512).astype(int)
    assert whole[y, x].any() and not fewer[y, x].any()


def test_small_frames_have_thin_lines():
    track = clip(1)
    share = [
        (skeleton.draw(track, size, size, skeleton.scale_for(size, size)) > 0).mean() for size in (64, 512)
    ]
    assert skeleton.scale_for(720, 1280) == 1 and share[0] < 4 * share[1]
