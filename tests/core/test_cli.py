"""hy generate and its companions as people and scripts meet them: stdout, stderr, exit codes, files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hy_core import media, provenance, shell
from hy_core.cli import run
from hy_core.media.numbered import PictureWriter
from hy_core.media.video import VideoWriter

PROMPT = "a red circle moves right"
DAWN = '''"""A plugin in a file."""
from __future__ import annotations
from dataclasses import dataclass
from hy_core.conditioner import Conditioner
from hy_core.hooks import hookimpl
from hy_core.options import option

class Dawn(Conditioner):
    """Follow a brightness curve."""
    @dataclass(frozen=True)
    class Options:
        level: float = option(1.0, help="Brightness.", minimum=0, maximum=2)

    def finish(self, request, result):
        result.frames = (result.frames * self.options.level).clip(0, 255).astype("uint8")

@hookimpl
def register_conditioners(register):
    register(Dawn)
'''

Hy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hy(tmp_path, monkeypatch, capsys, small_folder) -> Hy:
    """Run `hy` in an empty folder with no settings of the user's; the small model is called `small`."""
    from hy_core import plugins

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".settings"))
    monkeypatch.setenv("HY_MODELS", str(small_folder.parent))
    monkeypatch.setenv("HY_MODEL", "small")
    for name in ("HY_PLUGINS", "HY_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        plugins.installed.cache_clear()  # each call is a process of its own
        code = run([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def fast(monkeypatch, request) -> None:
    """Load the small model once for all tests."""
    loaded = request.getfixturevalue("loaded")
    monkeypatch.setattr("hy_core.models.load", lambda *arguments: loaded)


def only_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def files(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".settings" not in p.parts
    )


# -- making clips ----------------------------------------------------------------------------------------


def test_one_line_makes_a_video(hy: Hy, fast: None, tmp_path: Path) -> None:
    code, out, err = hy("generate", PROMPT)
    assert code == 0
    path = Path(only_line(out))
    assert path.name.startswith("a-red-circle-moves-right-") and path.suffix == ".mp4"
    assert "seed" in err and path.stem.rpartition("-")[2] in err  # the seed that was drawn
    clip = media.read(path)
    assert clip.frames.shape == (5, 32, 32, 3) and clip.fps == 8
    assert files(tmp_path) == [path.name]


def test_weights_of_ones_own_take_the_place_of_the_models(hy: Hy, small_folder, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(small_folder / "dit.safetensors")
    torch.manual_seed(5)
    Path("mine").mkdir()
    save_file({name: torch.randn_like(value) / 10 for name, value in state.items()}, "mine/dit.safetensors")
    (tmp_path / "mine" / "config.json").write_bytes((small_folder / "config.json").read_bytes())
    hy("generate", PROMPT, "--seed", 1, "-o", "a.png", "--frames", 1)
    assert (
        hy(
            "generate", PROMPT, "--seed", 1, "-o", "b.png", "--frames", 1, "--weights", "mine/dit.safetensors"
        )[0]
        == 0
    )
    one, two = (provenance.read(name) for name in ("a.png", "b.png"))
    assert one["weights"]["dit"] != two["weights"]["dit"] and one["weights"]["vae"] == two["weights"]["vae"]
    assert not np.array_equal(media.read("a.png").frames, media.read("b.png").frames)
    assert "--weights mine/dit.safetensors" in shell.command(two)
    assert hy("generate", PROMPT, "--weights", "no.safetensors")[0] == 3


@pytest.fixture
def official_folder(tmp_path: Path, small_folder: Path) -> Path:
    """A folder as it is published, in small: no config of the transformer, the VAE's in the official form."""
    import torch
    from hy_core.dit import DiT, DiTConfig
    from safetensors.torch import load_file

    folder = tmp_path / "ckpts"
    inner = folder / "hunyuan-video-t2v-720p"
    for part in ("transformers", "vae"):
        (inner / part).mkdir(parents=True)
    config = DiTConfig(
        in_channels=4, out_channels=4, width=96, heads=1, depth_double=1, depth_single=1, depth_refiner=1,
        rope_dims=(12, 42, 42), text_dim=16, pooled_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    state = {"module": DiT(config).state_dict()}
    torch.save(state, inner / "transformers" / "mp_rank_00_model_states.pt")
    torch.save(load_file(small_folder / "vae.safetensors"), inner / "vae" / "pytorch_model.pt")
    vae = {
        "_class_name": "AutoencoderKLCausal3D", "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1,
        "latent_channels": 4, "norm_num_groups": 4, "sample_size": 256, "sample_tsize": 64, "act_fn": "silu",
        "scaling_factor": 0.476986, "spatial_compression_ratio": 8, "time_compression_ratio": 4,
        "down_block_types": ["DownEncoderBlockCausal3D"] * 4, "mid_block_add_attention": True,
    }  # fmt: skip
    (inner / "vae" / "config.json").write_text(json.dumps(vae))
    for ours, theirs in (("llm", "text_encoder"), ("clip", "text_encoder_2")):
        shutil.copytree(small_folder / ours, folder / theirs)
    return folder


def test_an_official_folder_is_planned_and_run(hy: Hy, official_folder: Path) -> None:
    asked = "--model", official_folder, "--size", "32x32", "--frames", 5, "--steps", 2, "--seed", 1
    code, out, err = hy("generate", PROMPT, *asked, "--dry-run", "--json")
    assert code == 0, err
    cost = json.loads(out)["cost"]
    # Told by the file: a memory check that takes every official folder for the 13B model refuses this one.
    assert cost["dit_parameters"] < 5e6 and cost["weights_bytes"] < 4e7
    code, out, err = hy("generate", PROMPT, *asked, "-o", "a.png", "--frames", 1)
    assert code == 0, err
    assert media.read("a.png").frames.shape == (1, 32, 32, 3)


def test_the_official_negative_prompt_is_used_with_cfg(hy: Hy, official_folder: Path, monkeypatch) -> None:
    from hy_core import models
    from hy_core.text import TextEncoder

    asked, encode = [], TextEncoder.encode
    heard = lambda self, texts, *more: asked.extend(texts) or encode(self, texts, *more)  # noqa: E731
    monkeypatch.setattr(TextEncoder, "encode", heard)
    flags = (
        "--model",
        official_folder,
        "--size",
        "32x32",
        "--frames",
        1,
        "--steps",
        1,
        "--seed",
        1,
        "-o",
        "a.png",
    )
    hy("generate", PROMPT, *flags)
    assert asked == [PROMPT]
    hy("generate", PROMPT, *flags, "--cfg", 2)
    assert asked[1:] == [PROMPT, models.NEGATIVE]
    hy("generate", PROMPT, *flags, "--cfg", 2, "--negative", "blur")
    assert asked[3:] == [PROMPT, "blur"]


def test_the_memory_check_looks_at_the_weights_that_are_asked_for(
    hy: Hy, small_folder: Path, official_folder: Path, monkeypatch
) -> None:
    other = official_folder / "hunyuan-video-t2v-720p" / "transformers"
    plain, changed = (
        json.loads(hy("generate", PROMPT, "--dry-run", "--json", *more)[1])["cost"]["dit_parameters"]
        for more in ((), ("--weights", other))
    )
    assert changed > 5 * plain
    seen = []
    monkeypatch.setattr(
        "hy_core.estimate.check_memory", lambda cost, device: seen.append(cost.dit_parameters)
    )
    hy("generate", PROMPT, "--weights", other, "-o", "a.png", "--frames", 1)
    assert seen == [changed]


def test_a_default_name_never_overwrites_and_a_given_one_does(hy: Hy, fast: None, tmp_path: Path) -> None:
    for _ in range(3):
        assert hy("generate", PROMPT, "--seed", 4)[0] == 0
    stem = "a-red-circle-moves-right-4"
    assert files(tmp_path) == [f"{stem}-2.mp4", f"{stem}-3.mp4", f"{stem}.mp4"]
    for _ in range(2):
        assert only_line(hy("generate", PROMPT, "-o", "x.gif", "-q")[1]) == "x.gif"


def test_the_same_seed_makes_the_same_file_and_another_seed_another(hy: Hy, fast: None) -> None:
    for name, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2)):
        hy("generate", PROMPT, "--seed", seed, "-o", name)
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes() != Path("c.mp4").read_bytes()


def test_one_frame_is_a_picture_and_numbered_pictures_are_listed(hy: Hy, fast: None, tmp_path: Path) -> None:
    _, out, _ = hy("generate", PROMPT, "--frames", 1, "--seed", 1)
    assert only_line(out).endswith(".png")
    _, out, _ = hy("generate", PROMPT, "-o", "shots/%02d.png")
    assert out.split() == [f"shots/{n:02d}.png" for n in range(1, 6)]
    _, out, _ = hy("generate", PROMPT, "-o", "clips/", "--seed", 3)
    assert only_line(out) == "clips/a-red-circle-moves-right-3.mp4"


def test_json_describes_the_clip_and_stdout_is_pure(hy: Hy, fast: None) -> None:
    code, out, _ = hy("generate", PROMPT, "--json", "--seed", 5, "-o", "a.webm")
    found = json.loads(out)
    assert code == 0 and found["path"] == "a.webm" and found["seed"] == 5 and found["seconds"] > 0
    assert found["request"]["prompt"] == PROMPT and found["weights"].keys() == {"dit", "vae"}


def test_progress_as_json_is_a_line_per_event_on_stderr(hy: Hy, fast: None) -> None:
    _, out, err = hy("generate", PROMPT, "--progress", "json", "--seed", 1, "--steps", 4, "-q")
    events = [json.loads(line) for line in err.splitlines()]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == [1, 2, 3, 4] and events[-1] == {**events[-1], "event": "done", "path": only_line(out)}


def test_quiet_and_piped_runs_say_nothing(hy: Hy, fast: None) -> None:
    assert hy("generate", PROMPT, "-q")[2] == ""
    assert hy("generate", PROMPT, "--seed", 1)[2] == ""


def test_the_preview_is_a_picture_of_the_clip(hy: Hy, fast: None, tmp_path: Path) -> None:
    hy("generate", PROMPT, "--preview", "now.png", "-o", "a.mp4", "--seed", 1)
    assert media.read("now.png").frames.shape == (1, 32, 32, 3)
    assert files(tmp_path) == ["a.mp4", "now.png"]


# -- how it was made -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a-%d.png"])
def test_the_command_of_inspect_makes_the_same_frames(hy: Hy, fast: None, name: str) -> None:
    prompt = 'it\'s "quoted"; $HOME \u2028 -x'
    made = (
        "--seed",
        9,
        "--cfg",
        2.5,
        "--steps",
        4,
        "--negative",
        "- blur",
        "--sampler",
        "heun",
        "--shift",
        3.5,
    )
    _, out, _ = hy("generate", prompt, *made, "-o", name)
    code, command, _ = hy("inspect", out.split()[0], "--command")
    assert code == 0
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True).stdout.decode()
    _, program, *rest = words.split("\0")[:-1]
    hy(program, *rest, "-o", f"again-{name}")
    first, second = (Path(n % 1 if "%" in n else n) for n in (name, f"again-{name}"))
    assert np.array_equal(media.read(first).frames, media.read(second).frames)
    assert provenance.read(first)["request"] == {**provenance.read(second)["request"]} | {"tiling": "off"}


def test_a_run_with_a_plugin_is_repeated_with_the_plugin(hy: Hy, fast: None, tmp_path: Path) -> None:
    (tmp_path / "dawn.py").write_text(DAWN)
    hy("generate", PROMPT, "--seed", 1, "-o", "plain.png", "--frames", 1)
    code, _, _ = hy(
        "generate",
        PROMPT,
        "--seed",
        1,
        "-o",
        "dark.png",
        "--frames",
        1,
        "-p",
        "./dawn.py",
        "--dawn-level",
        0.25,
    )
    assert code == 0
    plain, dark = media.read("plain.png").frames, media.read("dark.png").frames
    assert np.array_equal(dark, (plain * 0.25).astype(np.uint8))
    _, out, _ = hy("inspect", "dark.png", "--json")
    found = json.loads(out)
    assert found["request"]["options"] == {"dawn": {"level": 0.25}}
    words = shlex.split(found["command"])
    assert words[words.index("--dawn-level") + 1] == "0.25" and "-p" in words


def test_no_provenance_leaves_none(hy: Hy, fast: None) -> None:
    hy("generate", PROMPT, "--no-provenance", "-o", "a.mp4")
    code, out, err = hy("inspect", "a.mp4")
    assert code == 1 and not out and err.startswith("Error: a.mp4 doesn't say how it was made")


def test_inspect_of_a_strange_record_shows_no_control_characters(hy: Hy, tmp_path: Path) -> None:
    record = {
        "hy": 1,
        "request": {"prompt": "x\x1b[2Jy\u202ez", "evil\x07": 1},
        "versions": {"torch": "\x1b[1m"},
    }
    media.write("a.mp4", np.zeros((3, 32, 32, 3), np.uint8), 8, comment=json.dumps(record))
    for more in ([], ["--json"], ["--command"]):
        code, out, err = hy("inspect", "a.mp4", *more)
        assert code == 0 and not set("\x1b\x07\u202e") & set(out + err)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00\x00\x00\x18ftypmp42" + b"\xff" * 200])
def test_inspect_of_what_is_no_video_is_one_line(hy: Hy, content: bytes) -> None:
    Path("bad.mp4").write_bytes(content)
    code, out, err = hy("inspect", "bad.mp4")
    assert code == 1 and not out and "bad.mp4" in only_line(err)
    assert hy("inspect", "missing.mp4")[0] == 3


# -- what can be wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says", "hints"),
    [
        (["--size", "33x32"], 2, "not a multiple of 16", "32x32"),
        (["--size", "big"], 2, "960x544", ""),
        (["--frames", "6"], 2, "4k+1", "5 or 9"),
        (["--frames", "5", "--seconds", "1"], 2, "--frames and --seconds", "one of them"),
        (["--stesp", "3"], 2, "no such option --stesp", "--steps"),
        (["--steps", "0"], 2, "--steps", ""),
        (["--steps", "many"], 2, "--steps", ""),
        (["--fps", "nan"], 2, "--fps", ""),
        (["--seed", "-1"], 2, "--seed", ""),
        (["--sampler", "eular"], 2, "eular", "euler"),
        (["--preset", "drafd"], 2, "drafd", "draft"),
        (["--model", "nothing"], 3, "nothing", ""),
        (["-p", "avatarr"], 3, "avatarr", ""),
        (["-p", "./missing.py"], 3, "missing.py", ""),
        (["-c", "missing.toml"], 2, "missing.toml", ""),
        (["-o", "a.xyz"], 2, ".xyz", ".mp4"),
        (["-o", "a.png"], 2, "one picture", "%03d"),
        (["-o", "/proc/no/a.mp4"], 2, "/proc", "-o"),
        (["--preview", "a.mp4"], 2, "picture", "png"),
        (["--device", "cuda:77"], 2, "cuda:77", ""),
        (["--size", "16384x16384"], 4, "not enough memory", "--size"),
    ],
)
def test_bad_input_is_one_line_with_the_fix(hy: Hy, tmp_path, arguments, code, says, hints) -> None:
    found, out, err = hy("generate", PROMPT, "--seed", "1", *arguments)
    error, *hint = err.strip().splitlines()
    assert found == code and not out
    assert error.startswith("Error: ") and says in error and len(hint) <= 1
    assert not hints or hints in hint[0]
    assert "Traceback" not in err and files(tmp_path) == []


def test_a_prompt_of_ten_thousand_words_is_refused(hy: Hy) -> None:
    code, _, err = hy("generate", "word " * 10_000)
    assert code == 2 and "2000 words" in err and len(err) < 500


def test_no_prompt_says_what_to_type(hy: Hy) -> None:
    code, _, err = hy("generate")
    assert code == 2 and "hy generate" in err


def test_an_unexpected_error_is_one_line_and_debug_shows_it(hy: Hy, monkeypatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("q\nsecond line")

    monkeypatch.setattr("hy_core.models.load", broken)
    code, _, err = hy("generate", PROMPT, "--seed", 1)
    assert (
        code == 1
        and err.startswith("Error: unexpected KeyError")
        and "HY_DEBUG=1" in err
        and "Traceback" not in err
    )
    assert "Traceback" in hy("generate", PROMPT, "--seed", 1, "--debug")[2]
    monkeypatch.setenv("HY_DEBUG", "1")
    assert "Traceback" in hy("generate", PROMPT, "--seed", 1)[2]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 bytes")],
)
def test_out_of_memory_exits_with_4_and_says_what_to_do(hy: Hy, monkeypatch, tmp_path, error) -> None:
    def greedy(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("hy_core.models.load", greedy)
    code, _, err = hy("generate", PROMPT, "--seed", 1)
    assert code == 4 and "memory" in err and "Hint: " in err and files(tmp_path) == []


def test_a_full_disk_leaves_no_file(hy: Hy, fast: None, monkeypatch, tmp_path: Path) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    code, out, err = hy("generate", PROMPT, "-o", "a.mp4", "--seed", 1)
    assert code == 1 and not out and "No space left" in only_line(err) and files(tmp_path) == []


def test_a_clip_that_breaks_off_while_it_is_written_leaves_no_file(
    hy: Hy, fast: None, monkeypatch, tmp_path: Path
) -> None:
    from hy_core.pipeline import Run

    put, done = PictureWriter.put, []

    def second_fails(self: PictureWriter, frames: np.ndarray) -> None:
        done.append(files(tmp_path))
        if len(done) == 2:
            raise KeyboardInterrupt
        put(self, frames)

    monkeypatch.setattr(PictureWriter, "put", second_fails)
    flags = "--frames", 33, "--steps", 1, "--tiling", "diffusers", "--seed", 1, "-o"
    assert hy("generate", PROMPT, *flags, "a-%02d.png")[0] == 130
    assert len(done[1]) == 12 and all(
        ".part" in name for name in done[1]
    )  # the first tile's but one, on disk already
    assert files(tmp_path) == []
    monkeypatch.setattr(PictureWriter, "put", put)
    assert hy("generate", PROMPT, *flags, "a-%02d.png")[0] == 0
    monkeypatch.setattr(Run, "needs_whole_clips", lambda self: True)
    assert hy("generate", PROMPT, *flags, "b-%02d.png")[0] == 0
    for number in range(1, 34):
        assert Path(f"a-{number:02}.png").read_bytes() == Path(f"b-{number:02}.png").read_bytes()


def test_ctrl_c_exits_with_130_and_leaves_nothing(hy: Hy, fast: None, monkeypatch, tmp_path: Path) -> None:
    def interrupt(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "finish", interrupt)
    code, out, _ = hy("generate", PROMPT, "-o", "a.mp4", "--seed", 1)
    assert code == 130 and not out and files(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_real_run_cleanly(tmp_path: Path, small_folder, number: int) -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "hy_core",
            "generate",
            PROMPT,
            "--steps",
            "900",
            "--progress",
            "json",
            "-o",
            "a.mp4",
        ],
        **{"cwd": tmp_path, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True},
        env={
            **os.environ,
            "HY_MODELS": str(small_folder.parent),
            "HY_MODEL": "small",
            "OMP_NUM_THREADS": "1",
        },
    )
    for line in child.stderr:
        if '"step"' in line:
            break
    child.send_signal(number)
    out, err = child.communicate(timeout=200)
    assert child.returncode == 130 and not out and "Traceback" not in err and files(tmp_path) == []


# -- dry runs, settings, other commands ------------------------------------------------------------------


def test_a_dry_run_shows_request_and_cost_and_loads_nothing(hy: Hy, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hy_core.models.load", None)
    code, out, _ = hy("generate", PROMPT, "--dry-run", "--steps", 7)
    assert code == 0 and files(tmp_path) == []
    for word in (PROMPT, "7", "tokens", "FLOP", "memory", "time", "cpu"):
        assert word in out
    code, out, _ = hy("generate", PROMPT, "--dry-run", "--json")
    found = json.loads(out)
    assert found["request"]["width"] == 32 and found["cost"]["seconds"] > 0
    assert found["cost"]["video_tokens"] == 2 * 2 * 2
    assert hy("generate", PROMPT, "--dry-run", "--size", "1x1")[0] == 2


def test_config_show_names_the_origin_of_every_value(hy: Hy, tmp_path: Path, monkeypatch) -> None:
    Path("run.toml").write_text('cfg = 4\nseed = 12\nplugins = ["dawn.py"]\n[dawn]\nlevel = 0.5\n')
    Path("dawn.py").write_text(DAWN)
    monkeypatch.setenv("HY_FPS", "6")
    shown = ("config", "show", "generate", "-c", "run.toml", "--preset", "draft", "--shift", "3")
    code, out, err = hy(*shown)
    assert code == 0 and "[dawn]" not in out and "add -p" in err  # looking runs no file that a TOML names
    code, out, _ = hy(*shown, "-p", "dawn.py")
    assert code == 0
    origins = dict(
        (line.partition("#")[0].strip(), line.rpartition("# ")[2]) for line in out.splitlines() if "=" in line
    )
    assert origins["steps = 8"] == "preset draft" and origins["fps = 6.0"] == "HY_FPS"
    assert origins["cfg = 4.0"] == "run.toml" and origins["shift = 3.0"] == "--shift"
    assert origins['size = "32x32"'] == "model small" and origins["level = 0.5"] == "run.toml"
    import tomllib

    assert tomllib.loads(out)["dawn"] == {"level": 0.5}


def test_config_init_writes_a_file_that_config_check_accepts(hy: Hy, tmp_path: Path) -> None:
    Path("dawn.py").write_text(DAWN)
    assert hy("config", "init", "new.toml", "-p", "./dawn.py")[0] == 0
    assert hy("config", "init", "new.toml")[0] == 2  # it is there already
    text = Path("new.toml").read_text()
    assert "# steps =" in text and "[dawn]" in text and "# level = 1.0" in text
    Path("new.toml").write_text(text.replace('plugins = ["dawn"]', 'plugins = ["dawn.py"]'))
    code, out, err = hy("config", "check", "new.toml")
    assert code == 0 and "fine" in out, err


def test_config_check_finds_what_is_wrong(hy: Hy) -> None:
    for text, word in (
        ("stesp = 1", "steps"),
        ("steps = 'x'", "steps"),
        ("size = 'x'", "960x544"),
        ("[", "TOML"),
    ):
        Path("run.toml").write_text(text)
        code, _, err = hy("config", "check", "run.toml")
        assert code == 2 and word in err and "run.toml" in err


def test_config_presets_lists_them(hy: Hy) -> None:
    _, out, _ = hy("config", "presets")
    assert {line.split()[0] for line in out.splitlines()} >= {"draft", "540p", "720p"}


def test_a_prompt_can_come_from_the_file(hy: Hy, fast: None) -> None:
    Path("run.toml").write_text('prompt = "a blue square"\nseed = 3\noutput = "out.gif"\n')
    _, out, _ = hy("generate", "-c", "run.toml")
    assert (
        only_line(out).endswith("out.gif")
        and provenance.read("out.gif")["request"]["prompt"] == "a blue square"
    )


def test_a_local_file_is_a_plugin_and_its_options_are_flags(hy: Hy, tmp_path: Path) -> None:
    Path("dawn.py").write_text(DAWN)
    code, _, err = hy("generate", PROMPT, "-p", "./dawn.py", "--dawn-leevl", "1")
    assert code == 2 and "--dawn-level" in err
    code, _, err = hy("generate", PROMPT, "-p", "./dawn.py", "--dawn-level", "3")
    assert code == 2 and "--dawn-level" in only_line(err.splitlines()[0])
    Path("broken.py").write_text("import nothing_like_this")
    code, _, err = hy("generate", PROMPT, "-p", "./broken.py")
    assert code == 3 and "broken" in err and "Traceback" not in err


def test_words_without_quotes_say_what_to_do(hy: Hy) -> None:
    code, _, err = hy("generate", "a", "red", "circle")
    assert code == 2 and "quotes" in err


def test_hy_alone_shows_its_help(hy: Hy) -> None:
    for arguments in ([], ["config"]):
        code, out, err = hy(*arguments)
        assert code == 0 and out.startswith("Usage: hy") and not err


def test_an_unknown_command_gets_a_suggestion(hy: Hy) -> None:
    code, _, err = hy("genrate")
    assert code == 2 and "hy generate" in err


def test_doctor_is_json_and_exits_with_1_when_something_failed(hy: Hy, monkeypatch) -> None:
    code, out, _ = hy("doctor", "--json")
    found = json.loads(out)
    states = {one["name"]: one["state"] for one in found["checks"]}
    assert states["python"] == states["torch"] == states["H.264 (.mp4)"] == "ok"
    assert code == (0 if found["ok"] else 1) and found["ok"] == ("fail" not in states.values())
    monkeypatch.setattr("hy_core.media.write", lambda *a, **k: 1 / 0)
    code, out, _ = hy("doctor")
    assert code == 1 and "fail  H.264" in out and "ZeroDivisionError" in out


@pytest.mark.parametrize(
    "prompt", ["- a red circle", "-a red circle", "--steps of a stair", "-1 circle", "-o x=1"]
)
def test_a_prompt_may_begin_with_a_dash(hy: Hy, fast: None, tmp_path: Path, prompt: str) -> None:
    code, out, err = hy("generate", prompt, "-o", "a.mp4", "--seed", 1)
    assert code == 0, err
    assert provenance.read("a.mp4")["request"]["prompt"] == prompt
    words = shell.arguments(provenance.read("a.mp4"))
    Path("a.mp4").unlink()
    assert hy(*words[1:], "-o", "a.mp4")[0] == 2  # after -- all are prompts
    assert hy("generate", "-o", "a.mp4", *words[2:])[0] == 0


def test_a_deleted_current_folder_is_one_line(small_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = f"rmdir ../gone && exec {shlex.quote(sys.executable)} -m hy_core generate x --dry-run"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path / "gone", capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Error: the current folder doesn't exist")


def test_a_signal_in_a_destructor_ends_the_run(tmp_path: Path) -> None:
    """Python drops exceptions that are raised in `__del__`, interrupts too."""
    code = """
import os, signal, time
import hy_core.cli as cli

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def work(**_):
    Late()
    time.sleep(60)

cli.cli.main = work
cli.main(["doctor"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "interrupted" in done.stderr
