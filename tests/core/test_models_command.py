"""hy models: list, inspect, convert and pull."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hy_core.cli import cli
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.models.describing import describe
from hy_core.testing.tiny import randomised
from hy_core.weights import load_dit
from hy_core.weights.convert import convert_dit
from hy_core.weights.files import load_state
from hy_core.weights.save import save_dit

CONFIG = DiTConfig(
    in_channels=4, out_channels=4, width=64, heads=2, depth_double=1, depth_single=2, depth_refiner=1,
    rope_dims=(8, 12, 12), text_dim=16, pooled_dim=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def dit():
    return randomised(DiT(CONFIG), seed=5).to(torch.bfloat16)


@pytest.fixture
def file(dit, tmp_path):
    save_dit(dit, tmp_path / "dit.safetensors")
    return tmp_path / "dit.safetensors"


def equal(first, second) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("to", "target", "prefix"),
    [
        ("official", "a.safetensors", ""),
        ("official", "mp_rank_00_model_states.pt", ""),
        ("diffusers", "transformer", ""),
        ("comfyui", "a.safetensors", "model.model."),
        ("comfyui", "a.safetensors", ""),
    ],
)
def test_there_and_back_is_bit_for_bit(dit, file, tmp_path, to, target, prefix):
    there = convert_dit(file, tmp_path / "out" / target, to, prefix=prefix)
    assert describe(there.weights).format.startswith(to)
    assert equal(load_dit(tmp_path / "out" / target), dit)
    back = convert_dit(tmp_path / "out" / target, tmp_path / "back.safetensors")
    assert equal(load_dit(back.weights), dit)
    assert back.parameters == sum(value.numel() for value in dit.state_dict().values())


def test_diffusers_itself_reads_the_folder(dit, file, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    convert_dit(file, tmp_path / "transformer", "diffusers")
    theirs = diffusers.HunyuanVideoTransformer3DModel.from_pretrained(
        tmp_path / "transformer", torch_dtype=torch.bfloat16
    )
    assert theirs.config.num_single_layers == CONFIG.depth_single
    assert sum(one.numel() for one in theirs.parameters()) == sum(one.numel() for one in dit.parameters())


@pytest.mark.parametrize("name", ["w8.safetensors", "w8.pt"])
def test_fp8_has_the_officials_scales_and_is_near(dit, file, tmp_path, name):
    done = convert_dit(file, tmp_path / name, dtype="fp8")
    (scales,) = (load_state(one) for one in done.beside)
    held = load_state(done.weights)
    weight = "double_blocks.0.img_attn_qkv.weight"
    assert held[weight].dtype is torch.float8_e4m3fn
    assert held["img_in.proj.weight"].dtype is torch.bfloat16
    largest = dit.state_dict()[weight].float().abs().max()
    assert torch.isclose(scales[weight.removesuffix(".weight")], largest / 448)
    ours, read = dit.state_dict()[weight].float(), load_dit(done.weights).state_dict()[weight].float()
    assert 0 < (read - ours).abs().max() < 0.07 * largest


def test_a_dtype_converts_every_value(dit, file, tmp_path):
    done = convert_dit(file, tmp_path / "w32.safetensors", dtype="fp32")
    assert equal(load_dit(done.weights), load_dit(file, dtype=torch.float32))
    assert describe(done.weights).dtypes.keys() == {"float32"}


def test_what_cannot_be_converted_is_one_line(file, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        convert_dit(file, tmp_path / "x.bin")
    with pytest.raises(UsageError, match="no 8-bit files"):
        convert_dit(file, tmp_path / "x", "diffusers", "fp8")
    with pytest.raises(MissingError):
        convert_dit(tmp_path / "none", tmp_path / "x.safetensors")
    (tmp_path / "vae.safetensors").write_bytes(Path(file).read_bytes()[:1000])
    with pytest.raises(HyError):
        convert_dit(tmp_path / "vae.safetensors", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_inspect_names_networks_variants_and_adapters(file, tmp_path):
    found = json.loads(CliRunner().invoke(cli, ["models", "inspect", str(file), "--json"]).stdout)
    assert (found["kind"], found["config"]["width"]) == ("DiT", 64)
    assert found["variant"].startswith("guidance-distilled")
    assert found["bytes"] == file.stat().st_size
    wide = DiTConfig(**{**CONFIG.to_json(), "in_channels": 9, "patch": (1, 2, 2), "rope_dims": (8, 12, 12)})
    save_dit(DiT(wide), tmp_path / "concat.safetensors")
    assert describe(tmp_path / "concat.safetensors").variant == "image to video by latent concatenation"
    from safetensors.torch import save_file

    layer = "transformer.double_blocks.0.img_attn_proj"
    save_file(
        {f"{layer}.lora_A.weight": torch.ones(4, 64), f"{layer}.lora_B.weight": torch.ones(64, 4)},
        tmp_path / "lora.safetensors",
    )
    lora = describe(tmp_path / "lora.safetensors")
    assert (lora.kind, lora.variant) == ("LoRA", "LoRA, rank 4")


def test_list_names_pocket_and_the_shelf(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("HY_MODELS", str(tmp_path))
    rows = json.loads(CliRunner().invoke(cli, ["models", "list", "--json"]).stdout)
    assert [row["name"] for row in rows] == ["pocket", "empty"]
    assert rows[0]["layout"] == "pocket" and rows[1]["layout"] == "none"


WEIGHTS = bytes(range(256)) * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as `hy models pull` uses."""

    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    names = ("LICENSE.txt", "transformer/w.safetensors")

    def log_message(self, *_):
        pass

    def content(self) -> bytes | None:
        if self.path.startswith("/api/models/a/b"):
            files = [{"rfilename": name, "size": 12} for name in self.names]
            files[1] |= {
                "size": len(WEIGHTS),
                "lfs": {"sha256": self.sha256, "size": len(WEIGHTS), "pointerSize": 1},
            }
            return json.dumps(
                {"id": "a/b", "modelId": "a/b", "sha": "0" * 40, "siblings": files, "tags": []}
            ).encode()
        if self.path.endswith("/LICENSE.txt"):
            return b"OUR LICENCE\n"
        return WEIGHTS if self.path.endswith("w.safetensors") else None

    def do_GET(self):
        content = self.content()
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET


@pytest.fixture
def pull(tmp_path):
    """Runs `hy models pull` against a hub on this machine: (handler, arguments) to the finished process."""

    def run(handler, *arguments):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, "-m", "hy_core", "models", "pull", *arguments]
        try:
            return subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=tmp_path,
                input="n\n",
            )
        finally:
            server.shutdown()

    return run


def test_pull_shows_the_licence_and_verifies(pull, tmp_path):
    refused = pull(Hub, "a/b")
    assert refused.returncode == 1 and "OUR LICENCE" in refused.stderr and not (tmp_path / "b").exists()
    done = pull(Hub, "a/b", "--accept-license")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / "transformer" / "w.safetensors").read_bytes() == WEIGHTS


def test_pull_refuses_damage_and_names_that_leave_the_folder(pull, tmp_path):
    damaged = pull(type("Damaged", (Hub,), {"sha256": "1" * 64}), "a/b", "--accept-license")
    assert damaged.returncode == 1 and "damaged on the way" in damaged.stderr
    assert not (tmp_path / "b" / "transformer" / "w.safetensors").exists()
    leaving = pull(type("Leaving", (Hub,), {"names": ("LICENSE.txt", "../../x")}), "a/b", "--accept-license")
    assert leaving.returncode == 1 and "leaves the folder" in leaving.stderr
    missing = pull(Hub, "c/d", "--accept-license")
    assert missing.returncode == 3 and len(missing.stderr.strip().splitlines()) <= 2
