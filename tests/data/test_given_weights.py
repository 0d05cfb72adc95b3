"""DOVER and RAFT from ONNX files: what the networks are shown, and what becomes of their answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import greys, timed_clip
from data.onnx_graphs import dover, raft, yolox
from data.onnx_graphs import save as save_graph
from hy_core.data import ClipRecord
from hy_core.errors import MissingError, UsageError
from hy_data.stages import dover as module
from hy_data.stages.dover import Dover, aesthetic_frames, fragment_corners, fragments, fused, technical_frames
from hy_data.stages.flow_models import Raft, load_raft
from hy_data.stages.motion import Motion

pytest.importorskip("onnxruntime")


def test_frames_of_both_views() -> None:
    assert aesthetic_frames(32).tolist() == list(range(32))
    assert aesthetic_frames(320).tolist() == list(range(4, 320, 10))
    numbers = technical_frames(300).reshape(3, 32)
    assert (np.diff(numbers) == 2).all()
    assert numbers[:, 0].tolist() == [18, 118, 218], "centred in thirds of 100 frames"
    assert sorted(set(technical_frames(5).tolist())) == [0, 1, 2, 3, 4], "a short video is repeated"
    assert set(aesthetic_frames(1)) == {0}


def test_fragments_are_patches_of_their_cells() -> None:
    rows, columns = np.mgrid[:480, :700]
    frame = np.stack([rows // 2, columns // 4, rows * 0], -1).astype(np.uint8)
    corners = fragment_corners(480, 700, np.random.default_rng(0))
    made = fragments(frame, corners)
    assert made.shape == (224, 224, 3)
    for row in range(7):
        for column in range(7):
            top, left = corners[row, column]
            assert 480 // 7 * row <= top <= 480 // 7 * (row + 1) - 32
            assert 100 * column <= left <= 100 * (column + 1) - 32
            patch = made[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert np.array_equal(patch, frame[top : top + 32, left : left + 32])
    assert fragment_corners(224, 224, np.random.default_rng(0))[:, 0, 0].tolist() == list(range(0, 224, 32))


def test_scores_are_those_of_the_views(tmp_path: Path) -> None:
    path = timed_clip(tmp_path / "a.mp4", greys([124] * 40, 48, 64), [index / 20 for index in range(40)])
    stage = Dover(weights=dover(tmp_path / "m.onnx"))
    (record,) = stage.run(ClipRecord(path))
    level = float(np.mean((124 - module._MEAN) / module._STD))
    assert record.results["dover_aesthetic"] == pytest.approx(level, abs=0.03)
    assert record.results["dover_technical"] == pytest.approx(level, abs=0.03)
    again = fused(float(record.results["dover_aesthetic"]), float(record.results["dover_technical"]))  # type: ignore[arg-type]
    assert record.results["dover"] == pytest.approx(again, abs=1e-4)
    assert list(stage.run(ClipRecord(path)))[0].results == record.results


def test_the_fused_score_is_dovers() -> None:
    assert fused(-0.08285, 0.1107) == 0.5
    assert fused(-0.08285, 0.1107 + 0.07355) == pytest.approx(1 / (1 + np.exp(-0.6104)))
    assert fused(-0.08285 + 0.03774, 0.1107) == pytest.approx(1 / (1 + np.exp(-0.3896)))
    assert fused(1e9, 1e9) == 1


@pytest.mark.parametrize("values", ["unit", "byte"])
def test_flow_is_in_pixels_of_the_pictures(tmp_path: Path, values: str) -> None:
    first, second = np.zeros((100, 150, 3), np.uint8), np.zeros((100, 150, 3), np.uint8)
    second[:, :75, 0], first[:50, :, 1] = 255, 255
    high = {"unit": (2.0, 1.0, -1.0), "byte": (255.0, 255.0, 0.0)}[values]
    flow = Raft(raft(tmp_path / "m.onnx"), values).flow(first, second)  # type: ignore[arg-type]
    assert flow.shape == (100, 150, 2) and flow.dtype == np.float32 and flow.flags.c_contiguous
    assert np.allclose(flow[:, :75, 0], high[0]) and np.allclose(flow[:, 75:, 0], 0)
    assert np.allclose(flow[:50, :, 1], high[1]) and np.allclose(flow[50:, :, 1], high[2])


def test_flow_of_a_network_with_a_fixed_size_is_scaled_back(tmp_path: Path) -> None:
    first, second = np.zeros((256, 512), np.uint8), np.full((256, 512), 10, np.uint8)
    flow = Raft(raft(tmp_path / "m.onnx", (128, 128)), "byte").flow(first, second)
    assert flow.shape == (256, 512, 2) and np.allclose(flow[..., 0], 40) and np.allclose(flow[..., 1], 0)
    flow = Raft(raft(tmp_path / "m.onnx", (128, 128)), "byte").flow(second, second)
    assert np.allclose(flow, [0, 20])


def test_files_of_another_kind_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="dover: no model at"):
        Dover(weights=tmp_path / "none.onnx").setup()
    with pytest.raises(UsageError, match="inputs images"):
        Raft(yolox(tmp_path / "m.onnx"))


def test_motion_by_given_weights_is_in_diagonals_a_second(tmp_path: Path) -> None:
    """A network that answers 6 pixels to the right everywhere, whatever the pictures are."""
    weights = save_graph(
        tmp_path / "m.onnx",
        [
            ("Sub", ["first", "first"], ["none"], {}),
            ("Add", ["first", "second"], ["both"], {}),
            ("Sub", ["both", "both"], ["zero"], {}),
            ("Slice", ["zero", "0", "1", "axis"], ["y"], {}),
            ("Add", ["y", "six"], ["x"], {}),
            ("Concat", ["x", "y"], ["flow"], {"axis": 1}),
        ],
        {"first": [1, 3, "h", "w"], "second": [1, 3, "h", "w"]},
        {"flow": [1, 2, "h", "w"], "none": [1, 3, "h", "w"]},
        {
            **{str(at): np.array([at], np.int64) for at in (0, 1)},
            "axis": np.array([1], np.int64),
            "six": np.full((1, 1, 1, 1), 6, np.float32),
        },
    )
    frames = np.random.default_rng(0).integers(0, 256, (13, 90, 160, 3), np.uint8)
    path = timed_clip(tmp_path / "a.mp4", frames, [index / 12 for index in range(13)])
    stage = Motion(backend="raft", weights=weights)
    stage.setup()
    (record,) = stage.run(ClipRecord(path))
    assert record.results["motion_speed"] == pytest.approx(6 * 12 / np.hypot(90, 160), rel=0.01)
    assert record.results["motion_smoothness"] == 1 and record.results["static"] == 0


def test_raft_needs_weights_and_what_reads_them(tmp_path: Path) -> None:
    import importlib.util

    with pytest.raises(UsageError, match="with weights"):
        Motion(backend="raft")
    with pytest.raises(UsageError, match="with weights"):
        Motion(weights=tmp_path / "m.onnx")
    with pytest.raises(MissingError, match="no weights at"):
        Motion(backend="raft", weights=tmp_path / "none.pth").setup()
    if importlib.util.find_spec("torchvision") is None:
        (tmp_path / "raft.pth").write_bytes(b"")
        with pytest.raises(MissingError, match="needs torchvision"):
            load_raft(tmp_path / "raft.pth")


@pytest.mark.parametrize("size", ["small", "large"])
def test_weights_of_torchvision_give_its_flow(tmp_path: Path, size: str) -> None:
    models = pytest.importorskip("torchvision.models.optical_flow")
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = getattr(models, f"raft_{size}")().eval()
    save_file(model.state_dict(), tmp_path / "raft.safetensors")
    torch.save(model.state_dict(), tmp_path / "raft.pth")
    first, second = np.random.default_rng(0).integers(0, 256, (2, 130, 132, 3), np.uint8)
    found = load_raft(tmp_path / "raft.safetensors").flow(first, second)
    assert found.shape == (130, 132, 2) and np.array_equal(
        found, load_raft(tmp_path / "raft.pth").flow(first, second)
    )
    planes = [torch.from_numpy(one).permute(2, 0, 1)[None] / 127.5 - 1 for one in (first, second)]
    padded = [torch.nn.functional.pad(one, (0, 4, 0, 6), mode="replicate") for one in planes]
    with torch.inference_mode():
        wanted = model(*padded)[-1][0].permute(1, 2, 0)[:130, :132].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="no weights of torchvision"):
        load_raft(tmp_path / "other.safetensors")
