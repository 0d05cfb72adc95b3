"""Camera motion: labels that follow geometry, features that turn with the picture, a forest equal to scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from hy_core.data import ClipRecord
from hy_core.errors import HyError, MissingError
from hy_data.camera.classes import CLASSES, flipped, mirrored
from hy_data.camera.classifier import SHIPPED, VIEW, Classifier, in_mirror
from hy_data.camera.features import features, upright
from hy_data.camera.forest import Forest, from_sklearn
from hy_data.camera.generator import Settings, make_clip
from hy_data.camera.motion import PAIRS, measure_motion
from hy_data.camera.moves import camera_path
from hy_data.camera.photographs import Photograph, photographs
from hy_data.cli.camera import command
from hy_data.stages.camera_motion import CameraMotion
from sklearn.ensemble import ExtraTreesClassifier

WAYS = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}  # where the picture moves


def noise_photographs(count: int = 4) -> list[Photograph]:
    rng = np.random.default_rng(7)
    images = []
    for index in range(count):
        image = sum(
            np.kron(rng.random((size, size)), np.ones((256 // size, 256 // size))) for size in (8, 16, 32, 64)
        )
        images.append(Photograph(f"noise {index}", (image * 63).astype(np.uint8)))
    return images


def clip(label: str, seed: int = 0, **settings: float) -> np.ndarray:
    return make_clip(
        noise_photographs(), label, (5, seed), Settings(**{"rooms": 0, "flat": 1, **settings})
    ).frames


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["pan", "tilt"])
def test_the_picture_moves_against_the_camera(kind: str, way: str) -> None:
    net = measure_motion(clip(f"{kind} {way}")).model[:, :2].sum(0)
    main = int(np.abs(net).argmax())
    assert np.sign(net[main]) == WAYS[way][main] and main == int(WAYS[way][0] == 0)


def test_zooms_grow_and_shrink_the_picture_and_a_static_one_stays() -> None:
    growth = {
        name: float(measure_motion(clip(name)).model[:, [2, 5]].sum()) for name in ("zoom in", "zoom out")
    }
    assert growth["zoom in"] > 0.1 and growth["zoom out"] < -0.1
    still = make_clip(noise_photographs(), "static shot", (5, 3), Settings(rooms=0, flat=1))
    assert np.abs(measure_motion(still.frames).model[:, :2].sum(0)).max() < 0.01


def test_only_a_rotation_is_larger_at_the_rim() -> None:
    for seed in range(4):
        ratios = {}
        for kind in ("pan", "tilt"):
            model = measure_motion(clip(f"{kind} right", seed)).model
            ratios[kind] = float((model[:, 6] * model[:, 0]).sum() / (model[:, 0] ** 2).sum())
        assert ratios["tilt"] > 0.12 > 0.08 > abs(ratios["pan"])


def test_an_orbit_keeps_its_pivot_in_the_middle() -> None:
    path = camera_path("around left", 9, np.random.default_rng(3), pivot=0.6)
    seen = np.einsum("tij,tj->ti", path.rotation, np.array([0, 0, 0.6]) - path.position)
    assert path.position[-1, 0] < -0.05  # it went to the left
    assert np.abs(seen[:, :2] / seen[:, 2:]).max() < 0.03


def test_a_clip_in_a_mirror_has_the_mirrored_class() -> None:
    assert {mirrored(name) for name in CLASSES} == {flipped(name) for name in CLASSES} == set(CLASSES)
    assert mirrored("pan left") == "pan right" and flipped("pan left") == "pan left"
    assert (
        in_mirror("tilt up", (True, True)) == "tilt down"
        and in_mirror("around left", (False, True)) == "around left"
    )
    frames = clip("pan left", 2, flat=0)
    plain, turned = measure_motion(frames), measure_motion(np.ascontiguousarray(frames[:, ::-1, ::-1]))
    assert upright(plain) == (False, upright(plain)[1]) and upright(turned)[0]
    assert np.allclose(plain.model, turned.mirrored(True, True).model, atol=0.02)
    exact = plain.mirrored(True, False)
    assert np.allclose(features(plain), features(exact), atol=1e-4)


def test_motion_is_per_eighth_of_the_clip_for_any_length_and_size() -> None:
    for frames, size in ((5, (90, 160)), (40, (144, 256)), (12, (360, 640))):
        step = 40 / 256 * size[1] / (frames - 1)
        big = noise_photographs(1)[0].image
        scene = np.kron(big, np.ones((3, 3), np.uint8))
        row = [scene[: size[0], round(step * index) :][:, : size[1]] for index in range(frames)]
        motion = measure_motion(np.stack(row))
        assert motion.model.shape == (PAIRS, 8)
        assert abs(motion.model[:, 0].sum() * 128 + 40) < 2.5, (frames, size)


def test_a_forest_equals_scikit_learn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 7)).astype(np.float32)
    values[::3] = values[1::3].round(1)
    values[:20] = values[20:40]  # equal samples of different classes: leaves that aren't pure
    labels = np.array(CLASSES)[rng.integers(0, 9, 300)]
    model = ExtraTreesClassifier(20, random_state=0).fit(values, labels)
    from_sklearn(model, CLASSES).save(tmp_path / "forest.safetensors")
    forest = Forest.load(tmp_path / "forest.safetensors")
    tried = np.concatenate([values, rng.normal(size=(200, 7)).astype(np.float32)])
    columns = [CLASSES.index(name) for name in model.classes_]
    ours = np.stack([forest.probabilities(one) for one in tried])
    assert np.abs(ours[:, columns] - model.predict_proba(tried)).max() < 1e-6
    assert ours.sum() == pytest.approx(len(tried))


@pytest.mark.parametrize("damage", ["text", "cut", "child", "feature", "leaf", "shape"])
def test_a_damaged_forest_is_one_error(tmp_path: Path, damage: str) -> None:
    good, path = Forest.load(SHIPPED), tmp_path / "forest.safetensors"
    arrays = {
        name: getattr(good, name).copy() for name in ("roots", "feature", "threshold", "right", "leaves")
    }
    inner, leaf = int(np.argmax(good.feature != 255)), int(np.argmax(good.feature == 255))
    if damage == "child":
        arrays["right"][inner] = 0
    elif damage == "feature":
        arrays["feature"][inner] = 254
    elif damage == "leaf":
        arrays["right"][leaf] = 60000
    elif damage == "shape":
        arrays["right"] = arrays["right"][:-1]
    Forest(**arrays, classes=good.classes, features=good.features).save(path)
    if damage in ("text", "cut"):
        path.write_bytes(b"no forest" if damage == "text" else path.read_bytes()[:5000])
    with pytest.raises(HyError, match="is no forest"):
        Forest.load(path)


def test_the_stage_reads_clips_and_is_unsure_below_its_confidence(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = np.repeat(clip("zoom in", 1), 2, axis=0)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 24, {"crf": "18"})
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    stage = CameraMotion()
    stage.setup()
    assert stage.views() == (VIEW,)
    (record,) = stage.run(ClipRecord(path))
    assert record.results["camera_motion"] == "zoom in" and record.rejected is None
    assert 0.8 <= record.results["camera_motion_confidence"] <= 1
    (record,) = CameraMotion(confidence=1.0).run(ClipRecord(path, span=(0.0, 0.01)))  # one frame
    assert record.results == {"camera_motion": "unsure", "camera_motion_confidence": 0.0}
    with pytest.raises(MissingError, match="no such forest"):
        CameraMotion(forest=tmp_path / "none").setup()


def test_the_command_trains_writes_and_measures(tmp_path: Path) -> None:
    from PIL import Image

    for one in noise_photographs(16):
        Image.fromarray(one.image).save(tmp_path / f"{one.name}.png")
    forest = tmp_path / "own.safetensors"
    common = ["--photos", str(tmp_path), "--test-count", "3", "--heldout", "0.4", "--json"]
    trained = CliRunner().invoke(
        command, ["train", "-o", str(forest), "--count", "14", "--trees", "5", *common]
    )
    assert trained.exit_code == 0, trained.output
    report = json.loads(trained.output)
    assert report["training_clips"] == 14 and set(report["tests"]) >= {"normal", "flat scenes"}
    normal = report["tests"]["normal"]
    assert sum(map(sum, normal["confusion"])) == normal["total"] == 3
    assert sum(row[index] for index, row in enumerate(normal["confusion"])) == normal["right"]
    measured = CliRunner().invoke(command, ["eval", "--forest", str(forest), *common])
    assert json.loads(measured.output)["tests"]["normal"]["confusion"] == normal["confusion"]


def test_too_few_photographs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="at least 4 are needed"):
        photographs("train", tmp_path)


def test_no_photograph_is_in_both_splits() -> None:
    try:
        training, heldout = ({one.name for one in photographs(split)} for split in ("train", "heldout"))
    except MissingError as error:
        pytest.skip(str(error))
    assert training and heldout and not training & heldout


@pytest.mark.slow
def test_the_shipped_forest_on_held_out_photographs() -> None:
    from hy_data.camera.training import measure_generated

    try:
        unseen = photographs("heldout")
    except MissingError as error:
        pytest.skip(str(error))
    if len(unseen) < 9:
        pytest.skip(f"only {len(unseen)} of 9 held-out photographs are installed")
    report = measure_generated(Forest.load(SHIPPED), unseen, 280, 0)
    assert report["normal"]["accuracy"] >= 0.95
    assert report["flat scenes"]["accuracy"] >= 0.92
    assert min(report[f"slow, H.264 crf {crf}"]["accuracy"] for crf in (30, 33)) >= 0.92
    sure = report["normal"]["levels"]["0.8"]
    assert sure["accuracy"] >= 0.99 and sure["kept"] >= 0.85


def test_the_classifier_is_small_and_needs_no_scikit_learn() -> None:
    assert SHIPPED.stat().st_size < 2e6
    assert Classifier().classify(clip("static shot", 4))[0] == "static shot"
