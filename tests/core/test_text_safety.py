"""Text encoders load from their folder alone: nothing in it runs or fetches, and damage is one line."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hy_core.errors import HyError, MissingError
from hy_core.text import TextEncoder
from safetensors.torch import load_file


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_folder, tmp_path / "m")
    return tmp_path / "m"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path, said: str, kind: type[HyError] = HyError) -> None:
    start = time.monotonic()
    with pytest.raises(kind, match=said) as caught, TextEncoder.load(folder) as encoder:
        encoder.encode(["a red circle"])
    assert "\n" not in f"{caught.value.message}{caught.value.hint}" and len(caught.value.message) < 600
    assert time.monotonic() - start < 10


AUTO_MAP = {
    "auto_map": {"AutoModel": "code.X", "AutoConfig": "code.X", "AutoTokenizer": ["code.X", "code.X"]}
}
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass X: pass\n"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("llm/config.json", {"attn_implementation": "someone/kernel"}),
        ("clip/config.json", {"_attn_implementation": "kernels-community/flash-attn"}),
        (
            "llm/config.json",
            {"_attn_implementation_internal": "flash_attention_2", "experts_implementation": "a/b"},
        ),
        ("llm/config.json", AUTO_MAP),
        ("llm/tokenizer_config.json", AUTO_MAP),
        ("clip/config.json", {"auto_map": {"AutoModel": "someone/model--code.X"}, "trust_remote_code": True}),
        (
            "llm/config.json",
            {"_name_or_path": "someone/model", "transformers_weights": "../../secret.safetensors"},
        ),
    ],
)
def test_no_entry_of_a_config_fetches_or_runs(
    file: str, changes: dict[str, Any], folder: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def connect(*arguments: object) -> None:
        calls.append(arguments)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    (folder / file).with_name("code.py").write_text(CODE)
    edit(folder / file, **changes)
    try:
        found = TextEncoder.load(folder).encode(["a red circle"])
    except HyError as error:
        assert "\n" not in error.message
    else:
        expected = TextEncoder.load(small_folder).encode(["a red circle"])
        assert torch.equal(found.pooled, expected.pooled) and torch.equal(found.text[0], expected.text[0])
    assert not calls and not list(folder.rglob("ran"))


def test_an_adapter_beside_a_model_is_not_followed(folder: Path) -> None:
    (folder / "llm" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "someone/model"})
    )
    assert TextEncoder.load(folder).encode(["x"]).pooled.shape[0] == 1


def tokenizer(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "llm" / "tokenizer.json"
        path.write_bytes(change(path.read_bytes()))

    return damage


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "llm" / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return damage


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "llm" / "config.json", **changes)


def other_words(folder: Path) -> None:
    path = folder / "llm" / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] = {word: 5000 + number for word, number in data["model"]["vocab"].items()}
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (tokenizer(lambda old: old[: len(old) // 2]), "holds no tokenizer"),
        (tokenizer(lambda old: b""), "holds no tokenizer"),
        (tokenizer(lambda old: old.replace(b'"BPE"', b'"XYZ"')), "holds no tokenizer"),
        (tokenizer(lambda old: b"\xff" * 100), "holds no tokenizer"),
        (other_words, "the tokenizer gives token"),
        (
            lambda folder: edit(folder / "llm" / "tokenizer_config.json", tokenizer_class="EvilTokenizer"),
            "EvilTokenizer",
        ),
        (weights(lambda old: old[:-100]), "damaged or cut short"),
        (weights(lambda old: b"\x80\x02."), "damaged or cut short"),
        (config(num_hidden_layers=10**8), "num_hidden_layers is 100000000"),
        (config(num_hidden_layers=500), "its config.json describes"),
        (config(num_hidden_layers="x"), "num_hidden_layers is x"),
        (config(vocab_size=10**9), "its config.json describes"),
        (config(vocab_size=10**30), "vocab_size is 1"),
        (config(hidden_size=0), "m/llm"),
        (config(hidden_size=-4), "m/llm"),
        (config(hidden_size=[]), "m/llm"),
        (config(num_attention_heads=3), "m/llm"),
        (config(model_type="detr"), "its type is 'detr'"),
        (config(model_type=None), "its type is 'None'"),
        (config(quantization_config={"quant_method": "mxfp4"}), r"quantised weights \(mxfp4\)"),
        (config(text_config={"model_type": "detr"}), "text_config is a 'detr'"),
        (lambda folder: (folder / "llm" / "config.json").write_text("[" * 100_000), "holds no model"),
        (lambda folder: (folder / "llm" / "config.json").unlink(), "holds no model"),
        (
            lambda folder: (folder / "llm" / "templates.json").write_text('{"video": {"before": 1}}'),
            "templates",
        ),
    ],
)
def test_damage_is_one_line(damage: Callable[[Path], object], said: str, folder: Path) -> None:
    damage(folder)
    refused(folder, said)


def test_damaged_records_of_a_torch_archive(folder: Path) -> None:
    path = folder / "clip" / "model.safetensors"
    archive = folder / "clip" / "pytorch_model.bin"
    torch.save(load_file(path), archive)
    path.unlink()
    expected = TextEncoder.load(folder).encode(["x"]).pooled
    assert expected.isfinite().all()
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    refused(folder, "checksum")


def test_a_missing_tensor_is_not_invented(folder: Path) -> None:
    from safetensors.torch import save_file

    path = folder / "llm" / "model.safetensors"
    state = load_file(path)
    state["extra"] = torch.zeros(10_000)
    del state["layers.0.mlp.up_proj.weight"]
    save_file(state, path)
    refused(folder, "lacks 1 tensors", MissingError)
