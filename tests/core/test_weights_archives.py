"""`torch.save` archives: what trainers save is found, damage and lies are one line, and nothing in a file is run."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hy_core.errors import HyError, MissingError
from hy_core.weights.archive import Archive, ArchiveError, open_archive
from hy_core.weights.detect import detect
from hy_core.weights.files import load_state, metadata
from hy_core.weights.keys import OFFICIAL
from hy_core.weights.pickled import TensorRecord, interpret
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4, dtype=torch.bfloat16)}


def same(state: dict[str, Tensor], expected: dict[str, Tensor] = WEIGHTS) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


def refused(path: Path, said: str, kind: type[HyError] = HyError) -> None:
    with pytest.raises(kind, match=said) as caught:
        load_state(path)
    assert "\n" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before-2020"])
def test_every_dtype_view_and_container(new: bool, tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    saved: dict[str, object] = {
        str(dtype).removeprefix("torch."): base.to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8)
    }
    saved |= {
        "t": base.t(),
        "part": base[1:, ::2],
        "parameter": torch.nn.Parameter(base),
        "scalar": torch.tensor(3),
    }
    saved["empty"] = torch.zeros(0, 5)
    if new:
        saved |= {"f8": base.to(torch.float8_e4m3fn), "u16": torch.ones(3, dtype=torch.uint16)}
    torch.save(OrderedDict(saved), tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    found = load_state(tmp_path / "x.pt")
    assert list(found) == list(saved)
    for key, tensor in found.items():
        expected = saved[key]
        assert isinstance(expected, Tensor)
        assert tensor.dtype == expected.dtype and tensor.shape == expected.shape
        assert torch.equal(tensor.float(), expected.detach().float()), key


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"module": WEIGHTS, "step": torch.tensor(7), "epoch": 3},
        {"state_dict": {"model": WEIGHTS}, "lr": torch.ones(1)},
        {"model_state_dict": WEIGHTS, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(9)}}}},
        {"ema_state_dict": WEIGHTS, "state_dict": {"other.weight": torch.ones(1)}},
        {"my_network": WEIGHTS, "optimizer": {"a": torch.ones(1), "b": torch.ones(1), "c": torch.ones(1)}},
        {"ema": {"decay": torch.tensor(0.9), "shadow": WEIGHTS}},
        {
            "model": WEIGHTS,
            "args": argparse.Namespace(lr=1),
            "where": Path("x"),
            "done": {1, 2},
            (1, 2): None,
        },
        {f"_orig_mod.{key}": value for key, value in WEIGHTS.items()},
        {"module": {f"_fsdp_wrapped_module.{k.replace('.', '._orig_mod.')}": v for k, v in WEIGHTS.items()}},
        {f"_fsdp_wrapped_module._checkpoint_wrapped_module.{key}": value for key, value in WEIGHTS.items()},
    ],
)
def test_weights_are_found_among_what_trainers_save(content: dict[object, object], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert same(load_state(tmp_path / "x.pt"))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "module.module.", "model.diffusion_model.", "net.transformer."]
)
def test_a_dit_is_found_behind_any_prefix(prefix: str) -> None:
    marker = "txt_in.t_embedder.mlp.0.weight"
    keys = {f"{prefix}{marker}": 1, f"{prefix}img_in.proj.weight": 2, "step": 3, "vae.conv.weight": 4}
    form = detect(keys)
    assert form.table is OFFICIAL and form.prefix == prefix
    expected = {marker, "img_in.proj.weight"} | (set() if prefix else {"vae.conv.weight"})
    assert set(form.strip(keys)) == expected


def test_one_network_of_several_in_a_flat_file() -> None:
    marker = "txt_in.t_embedder.mlp.0.weight"
    assert detect({f"ema.{marker}": 1, f"module.{marker}": 2}).prefix == "module."
    assert detect({f"ema.{marker}": 1, f"model.{marker}": 2}).prefix == "ema."
    with pytest.raises(HyError, match="sharded by FSDP"):
        detect({"_fsdp_wrapped_module._flat_param": 1})


def test_names_that_become_one_are_refused(tmp_path: Path) -> None:
    save_file({"a.w": torch.ones(1), "a._orig_mod.w": torch.zeros(1)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "a.w twice")


def test_plain_values_beside_the_weights_are_metadata(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "lora_alpha": 16, "note": "x"}, tmp_path / "x.pt")
    assert metadata(tmp_path / "x.pt") == {"lora_alpha": "16", "note": "x"}


def record_of(path: Path, key: str = "0") -> tuple[int, int]:
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(f"/data/{key}"))
    content = path.read_bytes()
    names = int.from_bytes(content[info.header_offset + 26 : info.header_offset + 28], "little")
    extra = int.from_bytes(content[info.header_offset + 28 : info.header_offset + 30], "little")
    return info.header_offset + 30 + names + extra, info.file_size


def test_one_changed_byte_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(WEIGHTS, path)
    start, size = record_of(path)
    content = bytearray(path.read_bytes())
    content[start + size // 2] ^= 1
    path.write_bytes(content)
    refused(path, "checksum of record data/0 is wrong")
    assert load_state(path, verify=False).keys() == WEIGHTS.keys()  # shapes alone don't need the values


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_state(tmp_path / "x.pt"))


def rebuilt(path: Path, change: dict[str, bytes | None], compress: int = zipfile.ZIP_STORED) -> Path:
    """An archive with other records; None leaves one out."""
    torch.save({"a": torch.ones(8)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in records.items():
            new = change.get(name.split("/", 1)[1], content)
            if new is not None:
                archive.writestr(name, new)
    return path


def test_missing_bytes_and_other_lies(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    refused(rebuilt(path, {"data/0": bytes(31)}), "31 bytes instead of 32")
    refused(rebuilt(path, {"data/0": None}), "data/0 is missing")
    refused(rebuilt(path, {"byteorder": b"big"}), "big-endian")
    refused(rebuilt(path, {}, zipfile.ZIP_DEFLATED), "compressed")
    assert load_state(rebuilt(path, {}))["a"].sum() == 8


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQ"


def tensor(offset: bytes, shape: bytes, stride: bytes) -> bytes:
    """A dictionary with one tensor over the eight floats of record 0."""
    call = b"ctorch._utils\n_rebuild_tensor_v2\n" + STORAGE + offset + shape + stride
    return pickled(b"}X\x01\x00\x00\x00a" + call + b"\x89ccollections\nOrderedDict\n)RtRs")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tensor(b"K\x00", b"K\x09\x85", b"K\x01\x85"), "has only 8 values"),
        (tensor(b"K\x01", b"K\x08\x85", b"K\x01\x85"), "has only 8 values"),
        (tensor(b"K\x00", b"J\x00\x00\x00\x7fJ\x00\x00\x00\x7f\x86", b"K\x00K\x00\x86"), "has only 8 values"),
        (tensor(b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85"), "a tensor without a shape"),
        (tensor(b"K\x00", b"K\x08\x85", b")"), "a tensor without a shape"),
        (pickled(b"cos\nsystem\nX\x04\x00\x00\x00true\x85R"), "os.system"),
        (pickled(b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R"), "builtins.eval"),
        (pickled(b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R"), "builtins.bytearray"),
        (pickled(b"(" * 40 + b"t" * 90), "pop from empty list"),
        (pickled(b"}" * 1_000_002), "over 1,000,000 instructions"),
        (pickled(b"j\xff\xff\xff\x7f"), "can't be read"),
        (pickled(b"P1\n"), "the instruction PERSID"),
        (b"\x80\x02}", "can't be read"),
    ],
)
def test_hostile_pickles_are_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    start = time.monotonic()
    refused(rebuilt(tmp_path / "x.pt", {"data.pkl": content}), said)
    assert time.monotonic() - start < 20


def test_a_dictionary_inside_itself_and_tuples_that_take_for_ever_to_hash(tmp_path: Path) -> None:
    inside: dict[str, object] = {}
    inside["module"] = inside
    torch.save(inside, tmp_path / "loop.pt")
    refused(tmp_path / "loop.pt", "holds no weights")
    bomb = b")" + b"2\x86" * 60 + b"K\x01s"  # a tuple of itself twice, 60 times over, as a key
    path = rebuilt(tmp_path / "hash.pt", {"data.pkl": pickled(b"}" + bomb)})
    refused(path, "holds no weights")
    wide: dict[str, object] = {}
    for _ in range(12):
        wide = {str(number): wide for number in range(30)}
    torch.save(wide, tmp_path / "wide.pt")
    refused(tmp_path / "wide.pt", "holds no weights")


class Command:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("protocol", range(6))
def test_no_protocol_runs_code(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = rebuilt(tmp_path / "x.pt", {"data.pkl": pickle.dumps({"a": Command()}, protocol)})
    with pytest.raises(HyError):
        load_state(path)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"a": Command()}, protocol))
    with pytest.raises(HyError):
        load_state(tmp_path / "raw.pt")
    assert not (tmp_path / "ran").exists()


def test_plain_values_of_every_protocol(tmp_path: Path) -> None:
    value = {"a": [1, -2, 1 << 40, 2.5, None, True], "b": ("é", b"x", (1, 2, 3, 4)), 3: {}}
    for protocol in range(6):
        (tmp_path / "x").write_bytes(pickle.dumps(value, protocol))
        with (tmp_path / "x").open("rb") as file:
            found = interpret(file)
        expected = value if protocol > 2 else value | {"b": ("é", found["b"][1], (1, 2, 3, 4))}
        assert found == expected


def test_tensors_of_a_closed_archive_stay_mapped(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "x.pt")
    archive = open_archive(tmp_path / "x.pt")
    record = archive.content["a.weight"]
    assert isinstance(archive, Archive) and isinstance(record, TensorRecord)
    tensor = archive.tensor(record)
    del archive
    assert torch.equal(tensor, WEIGHTS["a.weight"])
    with pytest.raises(ArchiveError):
        open_archive(tmp_path / "nothing")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("indexed", [True, False])
def test_shards(suffix: str, indexed: bool, tmp_path: Path) -> None:
    stem = "diffusion_pytorch_model"
    index = tmp_path / f"{stem}.{suffix}.index.json"
    names = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    keys = list(WEIGHTS)

    def write(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
        for name, state in zip(names, (first, second), strict=True):
            save = save_file if suffix == "safetensors" else torch.save
            save(state, tmp_path / name)

    if indexed:
        index.write_text(json.dumps({"weight_map": dict(zip(keys, names, strict=True))}))
    one, other = ({key: WEIGHTS[key]} for key in keys)
    write(one, other)
    assert same(load_state(tmp_path))
    write(one, other | {keys[0]: torch.zeros(2, 3)})  # a second copy, which the index doesn't mean
    if indexed:
        assert same(load_state(tmp_path))
    else:
        refused(tmp_path, "a.weight is in two of the")
    write(other, one)
    if indexed:
        refused(tmp_path, "isn't in .*00001-of-00002")
    write(one, other)
    (tmp_path / names[1]).unlink()
    refused(tmp_path, "00002-of-00002.* is missing", MissingError)


def test_ten_thousand_million_shards(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model-00001-of-9999999999.safetensors")
    start = time.monotonic()
    refused(tmp_path, "00002-of-9999999999.safetensors is missing", MissingError)
    assert time.monotonic() - start < 4


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    state = {"a.weight": torch.zeros(2, dtype=torch.complex64)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        refused(tmp_path / name, "complex64")


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    (tmp_path / "nothing.pt").write_bytes(b"\x80\x02.")
    refused(tmp_path / "nothing.pt", "damaged or cut short at 3 bytes")
    refused(tmp_path / ("x" * 300), "can't read")
