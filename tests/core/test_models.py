"""Finding models, their defaults without torch, and loading them strictly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hy_core import Conditioner, models, option
from hy_core.dit import Additive
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.models import Defaults
from hy_core.weights import save_port_weights


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def test_defaults_are_read_without_torch(small_folder):
    code = (
        "import sys; from hy_core import models; "
        f"found = models.defaults({str(small_folder)!r}); "
        "print(found.width, found.cfg, found.guidance, 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["32", "3.0", "None", "False"]


def test_pocket_is_found_with_its_own_defaults():
    card = models.find("pocket")
    assert card.layout == "pocket" and card.folder == models.POCKET
    assert (card.defaults.width, card.defaults.height, card.defaults.frames) == (64, 64, 17)
    assert card.defaults.guidance is None and card.defaults.cfg > 1


def test_a_name_is_looked_up_on_the_shelf(small_folder, monkeypatch):
    with pytest.raises(MissingError, match="no model 'small'") as caught:
        models.find("small")
    assert models.FOLDERS in caught.value.hint and caught.value.exit_code == 3
    monkeypatch.setenv(models.FOLDERS, str(small_folder.parent))
    assert models.find("small").folder == small_folder


def test_official_folders(tmp_path):
    inner = tmp_path / "ckpts" / "hunyuan-video-t2v-720p"
    (inner / "transformers").mkdir(parents=True)
    (inner / "vae").mkdir()
    (tmp_path / "ckpts" / "text_encoder").mkdir()
    for given in (tmp_path / "ckpts", inner):
        card = models.find(str(given))
        assert card.layout == "official"
        assert card.folder == tmp_path / "ckpts"
        assert card.dit == inner / "transformers" and card.vae == inner / "vae"
        assert card.defaults == Defaults(1280, 720, 129, 24.0, 50, 6.0, 1.0, None, models.NEGATIVE)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hunyuan-video-t2v-720p", "Aerial view, aerial view, overexposed, low quality, deformation, a poor"),
        (
            "hunyuan-video-i2v-720p",
            "deformation, a poor composition and deformed video, bad teeth, bad eyes,",
        ),
    ],
)
def test_official_folders_have_the_official_negative_prompt(tmp_path, name, words):
    for part in ("transformers", "vae"):
        (tmp_path / name / part).mkdir(parents=True)
    assert models.defaults(str(tmp_path)).negative.startswith(words)
    assert models.defaults("pocket").negative == ""


@pytest.mark.parametrize(
    ("distilled", "shift", "expected"),
    [
        (True, 7.0, Defaults()),
        (True, 17.0, Defaults(shift=17.0)),
        (False, 7.0, Defaults(guidance=None, cfg=6.0)),
    ],
)
def test_diffusers_folders(tmp_path, distilled, shift, expected):
    write(tmp_path / "model_index.json", {"_class_name": "HunyuanVideoPipeline"})
    write(tmp_path / "transformer" / "config.json", {"guidance_embeds": distilled})
    write(tmp_path / "vae" / "config.json", {"scaling_factor": 0.5})
    write(tmp_path / "scheduler" / "scheduler_config.json", {"shift": shift})
    card = models.find(str(tmp_path))
    assert card.layout == "diffusers" and card.defaults == expected


def test_other_folders_say_what_was_expected(tmp_path):
    with pytest.raises(MissingError, match="holds no model") as caught:
        models.find(str(tmp_path))
    assert "model_index.json" in caught.value.hint


def test_broken_config_files_are_one_line(small_folder, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(small_folder, folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(HyError, match="is not valid JSON"):
        models.find(str(folder))
    write(folder / "config.json", {"defaults": {"hight": 3}})
    with pytest.raises(UsageError, match="unknown key 'hight'"):
        models.find(str(folder))


@pytest.mark.parametrize("name", ["dit", "vae"])
def test_missing_weights_say_which_and_what_to_do(small_folder, tmp_path, name):
    folder = tmp_path / "m"
    shutil.copytree(small_folder, folder)
    (folder / f"{name}.safetensors").unlink()
    with pytest.raises(MissingError, match=rf"{name}\.safetensors is missing") as caught:
        models.load(str(folder), "cpu")
    assert caught.value.hint


def test_missing_encoders_are_found_out_when_they_are_needed(small_folder, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(small_folder, folder)
    shutil.rmtree(folder / "clip")
    loaded = models.load(str(folder), "cpu")
    with pytest.raises(MissingError, match="text encoders"):
        loaded.text()


def test_a_loaded_model_is_ready_to_run(loaded, small_folder):
    assert loaded.name == "small" and loaded.device.type == "cpu"
    assert not loaded.dit.training and not any(p.requires_grad for p in loaded.dit.parameters())
    assert loaded.hashes["dit"] == models.fingerprint(small_folder / "dit.safetensors")
    with loaded.text() as encoder:
        encoded = encoder.encode(["a red circle"])
    assert encoded.text[0].shape[1] == 16 and encoded.pooled.shape == (1, 16)
    with pytest.raises(HyError, match="freed"):
        encoder.encode(["again"])


class Dawn(Conditioner):
    """A module with weights from a file."""

    name = "dawn"

    @dataclass(frozen=True)
    class Options:
        """Which file."""

        file: str = option("", help="Weights.")

    def attach(self, dit, folder=None):
        dit.time.attach("dawn", Additive(1, dit.width))

    def weights(self, folder=None):
        return self.options.file


def test_modules_of_a_plugin_come_from_its_file(model, tmp_path):
    dit, files = model.dit, []
    for value in (1.0, 2.0):
        dit.time.attach("dawn", Additive(1, dit.width))
        torch.nn.init.constant_(dit.time["dawn"].proj.weight, value)
        files.append(tmp_path / f"{value}.safetensors")
        save_port_weights(dit, "dawn", files[-1])
        dit.time.detach("dawn")
    for file, value in zip(files, (1.0, 2.0), strict=True):  # other options: other modules
        with model.attached([Dawn(file=str(file))]):
            weight = dit.time["dawn"].proj.weight
        assert not weight.is_meta and not weight.requires_grad and (weight == value).all()
    with model.attached([Dawn(file=str(files[1]))]) as prints:
        assert dit.time["dawn"].proj.weight is weight  # equal options: nothing is loaded again
    assert prints == {"plugin dawn": models.fingerprint(files[1])} and files[0].read_bytes()
    shutil.copyfile(files[0], files[1])  # equal options, but another file
    with model.attached([Dawn(file=str(files[1]))]):
        assert (dit.time["dawn"].proj.weight == 1.0).all()
    with model.attached([]) as prints:
        assert not prints and not list(dit.time)


def test_weights_that_do_not_fit_leave_the_network_as_it_was(model, small_folder):
    with pytest.raises(HyError, match="dawn"):
        with model.attached([Dawn(file=str(small_folder / "vae.safetensors"))]):
            pass
    assert not list(model.dit.time)


def test_number_formats(monkeypatch):
    cpu = models.precision("official", "cpu", "auto")
    assert {cpu.dit, cpu.vae, cpu.text} == {torch.float32}
    half = models.precision("official", "cpu", "bf16")
    assert (half.dit, half.vae, half.text) == (torch.bfloat16, torch.bfloat16, torch.float32)
    monkeypatch.setattr("hy_core.models.precisions.pick_device", lambda name: torch.device("cuda"))
    gpu = models.precision("official", "auto", "auto")
    assert (gpu.dit, gpu.vae, gpu.text) == (torch.bfloat16, torch.float16, torch.float16)
    full = models.precision("official", "auto", "fp32")
    assert {full.dit, full.vae, full.text} == {torch.float32}
    pocket = models.precision("pocket", "auto", "auto")
    assert {pocket.dit, pocket.vae, pocket.text} == {torch.float32}


def test_fingerprints_tell_weights_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("hy_core.models.hashing.SAMPLED", 2)
    large, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    large.write_bytes(bytes(3 << 20))
    other.write_bytes(bytes((3 << 20) + 1))
    small, changed = tmp_path / "c.safetensors", tmp_path / "d.safetensors"
    small.write_bytes(b"weights")
    changed.write_bytes(b"weightz")
    prints = [models.fingerprint(path) for path in (large, other, small, changed, tmp_path)]
    assert len(set(prints)) == 5 and all(len(one) == 64 for one in prints)
    assert models.fingerprint(small) == models.fingerprint(small)
