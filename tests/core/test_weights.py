"""Checkpoints load strictly from every container and folder, mapped and once; hostile ones are one line."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hy_core.dit import Additive, DiT, DiTConfig
from hy_core.dit.ports import port_owner
from hy_core.errors import HyError, MissingError
from hy_core.weights import (
    load_dit,
    load_port_weights,
    load_state,
    save_dit,
    save_port_weights,
    save_safetensors,
)
from hy_core.weights.files import metadata as notes_of
from hy_core.weights.keys import COMFYUI, DIFFUSERS
from hy_core.weights.strict import finite
from safetensors.torch import save_file

CONFIG = DiTConfig(
    in_channels=4, out_channels=4, width=24, heads=2, depth_double=2, depth_single=2, depth_refiner=1,
    rope_dims=(4, 4, 4), text_dim=10, pooled_dim=6, guidance=False,
)  # fmt: skip
THEIRS = {
    "_class_name": "HunyuanVideoTransformer3DModel", "in_channels": 4, "out_channels": 4, "num_attention_heads": 2,
    "attention_head_dim": 12, "num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 1, "mlp_ratio": 4.0,
    "patch_size": 2, "patch_size_t": 1, "guidance_embeds": False, "text_embed_dim": 10,
    "pooled_projection_dim": 6, "rope_theta": 256.0, "rope_axes_dim": [4, 4, 4],
}  # fmt: skip


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    dit = DiT(CONFIG)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return dit.requires_grad_(False)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def line(error: pytest.ExceptionInfo[HyError]) -> str:
    """The message with its hint, which must be a line."""
    text = f"{error.value.message} ({error.value.hint})"
    assert "\n" not in text
    return text


def ours(dit: DiT, path: Path) -> Path:
    save_dit(dit, path)
    return path


def official(dit: DiT, path: Path, wrapper: str = "module") -> Path:
    """As the released T2V checkpoint: a folder with a pickle and no config; ours stands in for what shapes hide."""
    folder = path / "transformers"
    folder.mkdir(parents=True)
    state = dit.state_dict()
    torch.save({wrapper: state, "step": 7} if wrapper else state, folder / "mp_rank_00_model_states.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG.to_json()))
    return path


def diffusers(dit: DiT, path: Path, shards: int = 1) -> Path:
    folder = path / "transformer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(THEIRS))
    state = {key: value.clone() for key, value in DIFFUSERS.export(dit.state_dict(), dit.width)}
    if shards == 1:
        save_file(state, folder / "diffusion_pytorch_model.safetensors")
        return path
    names = sorted(state)
    index = {}
    for number in range(shards):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-{shards:05}.safetensors"
        save_file({name: state[name] for name in names[number::shards]}, folder / file)
        index |= dict.fromkeys(names[number::shards], file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path


def comfyui(dit: DiT, path: Path) -> Path:
    state = COMFYUI.export(dit.state_dict(), dit.width)
    metadata = {"config": json.dumps(CONFIG.to_json())}
    save_file({f"model.model.{key}": value.clone() for key, value in state}, path, metadata)
    return path


FORMATS = {
    "ours": lambda dit, folder: ours(dit, folder / "dit.safetensors"),
    "official-module": lambda dit, folder: official(dit, folder),
    "official-ema": lambda dit, folder: official(dit, folder, "ema"),
    "official-flat": lambda dit, folder: official(dit, folder, ""),
    "diffusers": lambda dit, folder: diffusers(dit, folder),
    "diffusers-shards": lambda dit, folder: diffusers(dit, folder, shards=3),
    "comfyui": lambda dit, folder: comfyui(dit, folder / "hunyuan.safetensors"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_dit(name: str, dit: DiT, tmp_path: Path) -> None:
    assert same(load_dit(FORMATS[name](dit, tmp_path)), dit)


def test_shards_need_no_index(dit: DiT, tmp_path: Path) -> None:
    folder = diffusers(dit, tmp_path, shards=3) / "transformer"
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    assert same(load_dit(folder), dit)
    (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(MissingError, match="00002-of-00003"):
        load_dit(folder)


def test_dtype_is_the_files_or_as_asked(dit: DiT, tmp_path: Path) -> None:
    half = DiT(CONFIG).bfloat16()
    half.final_layer.linear.float()  # the official model keeps this one layer in fp32
    path = ours(half, tmp_path / "half.safetensors")
    assert {p.dtype for p in load_dit(path).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_dit(path, dtype=torch.float32).parameters()} == {torch.float32}


def test_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    """Opening reads nothing; taken as they are, parameters lie in the file's own pages."""

    def private() -> int:
        status = Path("/proc/self/status")
        if not status.exists():
            pytest.skip("needs /proc")
        return next(
            int(row.split()[1]) for row in status.read_text().splitlines() if row.startswith("RssAnon")
        )

    config = DiTConfig(width=512, heads=4, depth_double=2, depth_single=2)
    size = 4 * sum(p.numel() for p in DiT(config).parameters())
    save_dit(DiT(config), tmp_path / "big.safetensors")
    torch.save(DiT(config).state_dict(), tmp_path / "big.pt")
    for name in ("big.safetensors", "big.pt"):
        before = private()
        dit = load_dit(tmp_path / name, config=config)
        grown = (private() - before) * 1024
        assert grown < size / 4, f"{name}: {grown:,} of {size:,} bytes were copied"
        assert len(dit.state_dict()) > 100


def test_one_tensor_too_few_too_many_or_too_wide(dit: DiT, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in dit.state_dict().items()}
    state.pop("time_in.mlp.0.bias")
    with pytest.raises(HyError, match=r"1 missing \(time_in.mlp.0.bias\)") as caught:
        load_dit(save(state, tmp_path / "few.safetensors"), config=CONFIG)
    assert "isn't complete" in line(caught)

    state = dit.state_dict() | {f"extra.{number}": torch.zeros(1) for number in range(5)}
    with pytest.raises(HyError, match=r"5 unexpected \(extra.0, extra.1, extra.2, ...\)") as caught:
        load_dit(save(state, tmp_path / "many.safetensors"), config=CONFIG)
    line(caught)

    state = dit.state_dict() | {"img_in.proj.weight": torch.zeros(24, 9, 1, 2, 2)}
    with pytest.raises(
        HyError, match=r"img_in.proj.weight is \[24, 9, 1, 2, 2\] and not \[24, 4, 1, 2, 2\]"
    ) as caught:
        load_dit(save(state, tmp_path / "wide.safetensors"), config=CONFIG)
    assert "input channels" in line(caught)


def test_likely_causes(dit: DiT, tmp_path: Path) -> None:
    extended = DiT(CONFIG)
    extended.double_blocks[0].after.attach("avatar", Additive(3, 24))
    path = save(extended.state_dict(), tmp_path / "avatar.safetensors")
    with pytest.raises(HyError) as caught:
        load_dit(path, config=CONFIG)
    assert "--plugin avatar" in line(caught)

    path = ours(dit, tmp_path / "dit.safetensors")
    for change, cause in (({"guidance": True}, "distilled"), ({"depth_single": 3}, "number of blocks")):
        with pytest.raises(HyError) as caught:
            load_dit(path, config=DiTConfig(**CONFIG.to_json() | change))
        assert cause in line(caught)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(value: float, dit: DiT, tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in dit.state_dict().items()}
    state["single_blocks.1.linear1.weight"][5, 7] = value
    with pytest.raises(
        HyError, match="single_blocks.1.linear1.weight has values that aren't numbers"
    ) as caught:
        load_dit(save(state, tmp_path / "nan.safetensors"), config=CONFIG)
    line(caught)


def test_large_tensors_are_sampled_and_large_numbers_are_numbers() -> None:
    big = torch.zeros(3000, 1000)
    assert (
        finite(big)
        and finite(torch.full((100,), 3e38))
        and finite(torch.full((9,), 6e4, dtype=torch.float16))
    )
    assert finite(torch.zeros(0)) and finite(torch.tensor([1]))
    big[1000:2000] = float("nan")
    assert not finite(big) and not finite(big.t()) and not finite(big[:, ::2])
    big.zero_()[-1, -1] = float("inf")
    assert not finite(big)


class Bomb:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        return os.system, ("touch bomb",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"module": {"a": torch.zeros(1)}, "bomb": Bomb()}, "bomb.pt")
    torch.save({"bomb": Bomb()}, "old.pt", _use_new_zipfile_serialization=False)
    for name in ("bomb.pt", "old.pt"):
        with pytest.raises(HyError, match="holds Python code") as caught:
            load_state(name)
        line(caught)
    assert not Path("bomb").exists()


def test_broken_files_are_one_line(dit: DiT, tmp_path: Path) -> None:
    whole = ours(dit, tmp_path / "dit.safetensors").read_bytes()
    official(dit, tmp_path)
    archive = (tmp_path / "transformers" / "mp_rank_00_model_states.pt").read_bytes()
    broken = {
        "cut.safetensors": (whole[: len(whole) // 2], "cut short"),
        "head.safetensors": (whole[:100], "cut short"),
        "longhead.safetensors": (struct.pack("<Q", 1 << 60) + b"{}", "cut short"),
        "badhead.safetensors": (struct.pack("<Q", 6) + b"{nope}", "damaged"),
        "cut.pt": (archive[: len(archive) // 2], "cut short"),
        "empty.safetensors": (b"", "an empty file"),
        "page.safetensors": (b"<!DOCTYPE html><html>not found</html>", "not a weight file"),
        "pointer.safetensors": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS pointer",
        ),
        "model.gguf": (b"GGUF" + bytes(60), "GGUF"),
        "short": (b"abc", "not a weight file"),
    }
    for name, (content, message) in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(HyError, match=message) as caught:
            load_state(path)
        assert name in line(caught)


def test_archives_without_weights(tmp_path: Path) -> None:
    torch.save({"step": 3, "module": {"name": "x"}}, tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "hello")
    for name in ("none.pt", "other.pt"):
        with pytest.raises(HyError) as caught:
            load_state(tmp_path / name)
        line(caught)


def test_an_index_can_not_reach_outside_its_folder(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "secret.safetensors")
    (tmp_path / "in").mkdir()
    index = tmp_path / "in" / "model.safetensors.index.json"
    for content, message in (
        ({"weight_map": {"a": "../secret.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors is missing"),
        ({"weight_map": [1]}, "no index"),
        ([], "no index"),
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(HyError, match=message) as caught:
            load_state(tmp_path / "in")
        line(caught)


def test_missing_paths_and_several_files(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no weights at"):
        load_dit(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="holds no weights"):
        load_dit(tmp_path / "empty")
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(HyError, match="several weight files"):
        load_state(tmp_path)


def test_plugin_weights_are_saved_apart_and_loaded_strictly(dit: DiT, tmp_path: Path) -> None:
    first, second = DiT(CONFIG), DiT(CONFIG)
    for one in (first, second):
        one.time.attach("dawn", Additive(3, 24))
        one.double_blocks[1].after.attach("dawn", Additive(3, 24))
        one.double_blocks[1].after.attach("dusk", Additive(3, 24))
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter)
    save_dit(first, tmp_path / "dit.safetensors")
    save_port_weights(first, "dawn", tmp_path / "dawn.safetensors")
    base = {key: value for key, value in first.state_dict().items() if port_owner(key) is None}
    loaded = load_dit(tmp_path / "dit.safetensors").state_dict()
    assert loaded.keys() == base.keys() and all(torch.equal(loaded[key], base[key]) for key in base)
    assert len(load_state(tmp_path / "dawn.safetensors")) == 4
    load_port_weights(second, "dawn", tmp_path / "dawn.safetensors")
    ours, theirs = first.state_dict(), second.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if ".dawn." in key)
    assert not any(torch.equal(ours[key], theirs[key]) for key in ours if ".dusk." in key and "weight" in key)
    with pytest.raises(HyError, match="plugin 'dusk'") as caught:
        load_port_weights(second, "dusk", tmp_path / "dawn.safetensors")
    line(caught)
    with pytest.raises(HyError, match="attached no modules"):
        load_port_weights(dit, "dawn", tmp_path / "dawn.safetensors")


def test_saving_is_whole_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    base = torch.arange(12.0).view(3, 4)
    save_safetensors(path, {"a": base, "b": base.t(), "c": base[1:]}, {"by": "test"})
    state = load_state(path)
    assert torch.equal(state["b"], base.t()) and torch.equal(state["c"], base[1:])
    (tmp_path / "file").write_text("")
    with pytest.raises(HyError, match="cannot write") as caught:
        save_safetensors(tmp_path / "file" / "x.safetensors", {"a": base})
    line(caught)
    with pytest.raises(Exception):  # noqa: B017 - whatever is wrong with the tensors, the old file stays
        save_safetensors(path, {"a": "no tensor"})  # type: ignore[dict-item]
    assert load_state(path).keys() == {"a", "b", "c"}
    assert [one.name for one in path.parent.iterdir()] == ["x.safetensors"]


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_safetensors(path, state)
    return path


@pytest.mark.parametrize("length", [0x80, 0x4B50], ids=["like a pickle", "like a zip"])
def test_a_header_whose_length_looks_like_another_format(tmp_path: Path, length: int) -> None:
    """safetensors begins with a length: 128 is the first byte of a pickle, 19280 the first two of a zip."""
    head = b'{"__metadata__":{"note":"x"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", length) + head.ljust(length) + struct.pack("<f", 3.0))
    assert load_state(file)["w"].tolist() == [3.0]
    assert notes_of(file) == {"note": "x"}
