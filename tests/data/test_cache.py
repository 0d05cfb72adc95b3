"""Caches of latents and text features, the set as a source, the dataset and its loader."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hy_core.data import ClipShape
from hy_core.data.store import TensorStore
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import open_writer
from hy_core.models import find, fingerprint
from hy_core.text import TextEncoder
from hy_core.weights import load_vae
from hy_data.cache.command import CacheRequest, fill, stores
from hy_data.cache.keys import latent_key
from hy_data.captions.schema import StructuredCaption
from hy_data.cli import command
from hy_data.dataset import CachedSet, Loader
from hy_data.sampler import BucketSampler, batch_sizes
from hy_data.select.decide import decide
from hy_data.source import SetSource
from hy_data.table import write_scores

RECIPE: dict[str, Any] = {"sets": {"small": {"height": 32, "width": 48, "frames": 5}}}
REQUEST = {"name": "small", "captions": 3, "area": 32 * 48, "device": "cpu"}


def item(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((2, 3), value), "b": torch.tensor(value, dtype=torch.float16)}


def test_a_store_returns_what_was_added_also_in_another_process(tmp_path: Path) -> None:
    store = TensorStore(tmp_path)
    store.add({"k1": item(1), "k2": item(2)})
    store.add({"k3": item(3)})
    assert store.missing(["k0", "k1", "k3", "k0"]) == ["k0"]
    for other in (store, TensorStore(tmp_path), pickle.loads(pickle.dumps(store))):
        found = other.get("k2")
        assert found.keys() == {"a", "b"} and torch.equal(found["a"], item(2)["a"]) and found["b"] == 2
    with pytest.raises(MissingError, match="k0"):
        store.get("k0")


@pytest.mark.parametrize("damage", [b"", b"not a database" * 100])
def test_the_index_is_made_anew_from_the_shards(tmp_path: Path, damage: bytes) -> None:
    TensorStore(tmp_path).add({"k1": item(1)})
    (tmp_path / "index.sqlite").write_bytes(damage)
    assert TensorStore(tmp_path).get("k1")["b"] == 1
    (tmp_path / "index.sqlite").unlink()
    assert TensorStore(tmp_path).missing(["k1"]) == []


@pytest.mark.parametrize("fault", ["short", "flipped", "gone"])
def test_a_damaged_shard_is_told_and_its_keys_are_missing(tmp_path: Path, fault: str) -> None:
    store = TensorStore(tmp_path)
    store.add({"k1": item(1)})
    (shard,) = tmp_path.glob("*.safetensors")
    store.add({"k2": item(2)})
    data = bytearray(shard.read_bytes())
    store.close()
    if fault == "gone":
        shard.unlink()
    else:
        data[-3] ^= 1
        shard.write_bytes(data[:-5] if fault == "short" else data)
        with pytest.raises(HyError, match=rf"{shard.name} is damaged"):
            store.get("k1")
        store.close()
        (line,) = store.check(every_byte=True)
        assert shard.name in line and "computed again" in line and not shard.exists()
    assert TensorStore(tmp_path).missing(["k1", "k2"]) == ["k1"]
    assert store.check() == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decided folder: 5 clips, one of them damaged, one too short for the set's 5 frames, and a picture-like one."""
    home = tmp_path_factory.mktemp("sets")
    (home / "raw").mkdir()
    rows = []
    for number in range(6):
        frames = np.zeros((16, 64, 96, 3), np.uint8)
        frames[..., number % 3] = 60 + 30 * number
        frames[:, :, : 8 + 8 * number] = 250
        path = home / "raw" / f"{number}.mp4"
        with open_writer(path, 8.0) as writer:
            writer.add(frames)
        if number == 4:
            path.write_bytes(b"not a video")
        caption = StructuredCaption(short_description=f"Clip {number}.", style="plain", lighting="even")
        rows.append({
            "id": f"{number:016x}", "content": f"{number:016x}", "path": f"raw/{number}.mp4", "start": 0.25,
            "stop": 0.25 + (0.25 if number == 5 else 1.25), "crop": [0, 0, 48, 64] if number == 3 else None,
            "width": 96, "height": 64, "fps": 8.0, "frames": 2 if number == 5 else 10, "has_audio": False,
            "status": "ok", "tries": 1, "captions": [caption.short_description],
            "caption_fields": json.dumps(caption.to_json()), "concept": number % 2,
        })  # fmt: skip
    write_scores(rows, home / "scores.parquet")
    recipe = {"sets": {"small": RECIPE["sets"]["small"] | {"frames": 1}}}
    decide(home, recipe)
    return home


def request(folder: Path, **values: Any) -> CacheRequest:
    return CacheRequest(folder, **{**REQUEST, "frames": (5,), **values})


@pytest.fixture(scope="module")
def cached(folder: Path) -> tuple[Path, Any]:
    return folder, fill(request(folder))


def test_a_set_is_a_source_in_the_shapes_of_its_buckets(folder: Path) -> None:
    source = request(folder).source()
    assert len(source) == 5 and source.assignment.reasons == {"fewer than 5 frames": 1}
    assert source.shape(0) == ClipShape(5, 32, 48) and source.shape(3) == ClipShape(5, 48, 32)
    for index in (0, 3):
        video = source[index].video()
        assert video.shape == (*source.shape(index), 3) and video.dtype == np.uint8
    assert source[0].video()[:, :, 8:].mean(axis=(0, 1, 2))[0] == pytest.approx(60, abs=12)
    with pytest.raises(HyError):
        source[4].video()
    assert source.fingerprint == request(folder).source().fingerprint
    assert source.fingerprint != request(folder, frames=(9,)).source().fingerprint
    assert source.concepts.tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(MissingError, match="no set 'other'"):
        SetSource(folder, "other")


def test_captions_of_a_clip_vary_and_are_the_same_in_every_run(folder: Path) -> None:
    source = request(folder).source()
    texts = source[0].captions(20)
    assert len(texts) > 4 and texts == request(folder).source()[0].captions(20)
    assert texts[:2] == source[0].captions(2) and texts != source[1].captions(20)


def test_the_cache_holds_what_the_encoders_give(cached: tuple[Path, Any]) -> None:
    folder, report = cached
    assert (report.clips, report.latents.computed, list(report.latents.failed)) == (5, 4, [f"{4:016x}"])
    assert report.unfit == {"fewer than 5 frames": 1}
    spec, source = find("pocket"), request(folder).source()
    latents, texts = stores(folder)
    vae = load_vae(spec.vae, dtype=torch.float32).eval()
    pixels = torch.from_numpy(source[0].video()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        wanted = vae.to_model(vae.encode_inference(pixels).mode())[0]
    found = latents.get(latent_key(source[0], fingerprint(spec.vae), "float16"))["latents"]
    assert found.dtype == torch.float16 and torch.allclose(found.float(), wanted, atol=4e-3, rtol=2e-3)
    data = CachedSet(source, captions=3, caption_dropout=0)
    with TextEncoder.load(spec.folder, "cpu", torch.float32) as encoder:
        encoded = encoder.encode([data[0].prompt])
    assert torch.allclose(data[0].text, encoded.text[0].float(), atol=2e-2)
    assert torch.allclose(data[0].pooled, encoded.pooled[0].float(), atol=2e-2)


def test_nothing_is_computed_twice_and_a_lost_shard_is_computed_again(cached: tuple[Path, Any]) -> None:
    folder, first = cached
    again = fill(request(folder))
    assert (again.latents.found, again.latents.computed, again.texts.computed) == (4, 0, 0)
    assert again.texts.found == first.texts.computed
    assert (
        fill(request(folder, frames=(9,), captions=0)).latents.computed == 4
    )  # another shape: other latents
    shard = next((folder / "cache" / "latents").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    report = fill(request(folder, verify=True))
    mended = report.latents.computed + fill(request(folder, frames=(9,), captions=0)).latents.computed
    assert mended == 4 and any(shard.name in note for note in report.notes)


def test_the_dataset_yields_features_and_its_loader_continues_anywhere(cached: tuple[Path, Any]) -> None:
    folder, _ = cached
    source = request(folder).source()
    data = CachedSet(source, captions=3, seed=1)
    assert data.assignment.reasons["no cached latents"] == 1
    sizes = batch_sizes(source.buckets, clips=2)

    def loader(rank: int = 0, ranks: int = 1, state: Any = None, workers: int = 0) -> Loader:
        made = Loader(data, BucketSampler(data.assignment, sizes, rank=rank, ranks=ranks), workers)
        if state is not None:
            made.load_state_dict(state)
        return made

    whole = list(loader())
    assert Counter(i for b in whole for i in b.indices) == Counter(range(4))
    for batch in whole:
        frames, height, width = batch.shape
        assert batch.latents.shape == (len(batch.indices), 8, 2, height // 4, width // 4)
        assert batch.latents.dtype == torch.float32 and len(batch.text) == len(batch.prompts)
        assert batch.pooled.shape[0] == len(batch.keys)
    first = loader()
    taken = next(iter(first))
    rest = list(loader(state=first.state_dict()))
    assert [b.indices for b in (taken, *rest)] == [b.indices for b in whole]
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(rest, whole[1:], strict=True))
    assert [b.prompts for b in rest] == [b.prompts for b in whole[1:]]
    state = first.state_dict()
    both = [list(loader(rank, 2, state)) for rank in range(2)]
    seen = Counter(i for part in both for b in part for i in b.indices[: len(b.indices) - b.padded])
    assert seen + Counter(taken.indices) == Counter(range(4))


def test_captions_differ_between_epochs_and_are_dropped_at_their_rate(cached: tuple[Path, Any]) -> None:
    folder, _ = cached
    data = CachedSet(request(folder).source(), captions=3, caption_dropout=0.5)
    prompts = []
    for data.epoch in range(40):
        prompts.append(data[0].prompt)
    assert 8 < prompts.count("") < 32 and len(set(prompts)) > 2


def test_a_cache_that_lacks_captions_is_told(cached: tuple[Path, Any]) -> None:
    folder, _ = cached
    with pytest.raises(MissingError, match="captions are not cached") as caught:
        CachedSet(request(folder).source(), captions=30)
    assert "--captions 30" in str(caught.value.hint)
    with pytest.raises(MissingError, match="1 of 5 clips have no cached latents"):
        CachedSet(request(folder).source(), captions=3, require_all=True)
    with pytest.raises(UsageError):
        CachedSet(request(folder).source(), captions=0)


def test_the_command_says_what_it_did(cached: tuple[Path, Any]) -> None:
    folder, _ = cached
    options = [
        "--set",
        "small",
        "--captions",
        "3",
        "--area",
        str(32 * 48),
        "--frames",
        "5",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(command, ["cache", str(folder), *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert "4 there already, 0 computed, 1 failed" in result.output
    assert "not used: 1 with fewer than 5 frames" in result.output
    stated = json.loads((folder / "cache" / "small.json").read_text())
    assert stated["request"]["name"] == "small" and len(stated["failed"]) == 1


@pytest.mark.slow
def test_workers_read_ahead_of_the_state(cached: tuple[Path, Any]) -> None:
    folder, _ = cached
    data = CachedSet(request(folder).source(), captions=3)
    loader = Loader(
        data, BucketSampler(data.assignment, batch_sizes(data.source.buckets, clips=1)), workers=1
    )
    iterator = iter(loader)
    taken = [next(iterator).indices for _ in range(2)]
    assert sum(loader.state_dict()["done"]) == 2
    rest = [batch.indices for batch in loader]
    assert Counter(i for one in (*taken, *rest) for i in one) == Counter(range(4))


KILLED = """
import sys, torch
from hy_core.data.store import TensorStore
store = TensorStore(sys.argv[1])
for number in range(100000):
    key = f"key{number}"
    if store.missing([key]):
        store.add({key: {"a": torch.full((400, 1000), float(number))}})
        print(number, flush=True)
"""


@pytest.mark.slow
def test_a_store_survives_kills_at_any_moment(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    told = -1
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told = max(told, int(process.stdout.readline()))
        try:
            process.wait(float(rng.uniform(0.05, 0.6)))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout.read().split() if line.isdigit())])
        process.wait()
        store = TensorStore(tmp_path)
        assert store.check(every_byte=True) == []
        assert store.missing([f"key{number}" for number in range(told + 1)]) == []
        for number in range(told + 1):
            assert store.get(f"key{number}")["a"][0, 0] == number
        store.close()
