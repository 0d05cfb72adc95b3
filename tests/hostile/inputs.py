"""Hostile inputs by kind. Each maker takes a folder for its files and a seeded generator, and returns its case."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tomllib
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from hostile.forks import Case
from hostile.mutate import bytes_of, dumped, json_text, strange, values_of
from hy_core import media
from safetensors.torch import load_file, save_file
from torch import Tensor

Maker = Callable[[Path, Random, Path], Case]
RECIPES = sorted(Path(__file__).parents[2].glob("packages/*/src/*/recipes/pocket*.toml"))
RUN = ("generate", "a red circle", "--frames", "1", "--steps", "1", "--seed", "1", "-q")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def command(name: str, folder: Path, *argv: object) -> Case:
    return Case(name, str(folder), [str(one) for one in argv], size=size_of(folder))


def call(name: str, folder: Path, function: str, *arguments: object) -> Case:
    return Case(name, str(folder), None, function, [str(one) for one in arguments], size=size_of(folder))


# Checkpoints


def safetensors(folder: Path, random: Random, base: Path) -> Case:
    content = (base / "small" / "dit.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    path = folder / "w.safetensors"
    if random.random() < 0.4:
        path.write_bytes(bytes_of(content, random, random.choice((8, 8 + length, None))))
    else:
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"] = {
            "config": dumped(values_of({"width": 32, "heads": 2, "depth_double": 1}, random))
        }
        changed = dumped(values_of(header, random)).encode(errors="surrogatepass")
        path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])
    return command("safetensors", folder, *RUN, "--weights", path, "-o", "out.png")


class _Run:
    """Unpickled by Python, it would run a command."""

    def __init__(self, random: Random, sentinel: str) -> None:
        import builtins

        self.how: Any = random.choice(
            [
                (os.system, (f"touch {sentinel}",)),
                (builtins.eval, (f"open({sentinel!r}, 'w')",)),
                (builtins.exec, (f"open({sentinel!r}, 'w')",)),
                (getattr, ("x", "upper")),
                (bytearray, (1 << 40,)),
            ]
        )

    def __reduce__(self) -> Any:
        return self.how


def archive(folder: Path, random: Random, base: Path) -> Case:
    state = load_file(base / "small" / "dit.safetensors")
    path = folder / "w.pt"
    kind = random.randrange(6)
    content: Any = {"module": state, "step": torch.tensor(3)}
    if kind == 0:
        content["args"] = _Run(random, str(folder / "SENTINEL"))
    elif kind == 1:
        content["module"] = content
    elif kind == 2:
        key = random.choice(list(state))
        dtype = random.choice((torch.int64, torch.complex64, torch.uint8, torch.bool, torch.float8_e5m2))
        state[key] = (
            state[key].to(dtype) if random.random() < 0.7 else state[key].expand(3, *state[key].shape)
        )
    torch.save(content, path, _use_new_zipfile_serialization=random.random() < 0.8)
    if kind == 3:
        _rezip(path, random)
    elif kind > 3:
        content = path.read_bytes()
        path.write_bytes(bytes_of(content, random, random.choice((2000, 40_000, None))))
    return command("archive", folder, *RUN, "--weights", path, "-o", "out.png")


def _rezip(path: Path, random: Random) -> None:
    """Write an archive again with one record changed or all compressed."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    target = random.choice(
        [name for name in records if name.endswith(("data.pkl", "byteorder"))] + list(records)[-3:]
    )
    nested = pickle.dumps({"module": {"a": None}}, 2)[:-1]
    records[target] = random.choice(
        (
            b"",
            bytes(1 << 26),
            bytes_of(records[target], random),
            b"\x80\x02" + b"(" * 300_000 + b".",
            b"\x80\x02" + b"}" * 300_000 + b".",
            b"\x80\x02}" + b")" + b"2\x86" * 100 + b"K\x01s.",
            b"\x80\x02" + b"j\xff\xff\xff\x7f.",
            b"\x80\x02r\xff\xff\xff\xff.",
            b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 1000 + b".",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
            b"\x80\x02I" + b"9" * 100_000 + b"\n.",
            nested + b"0.",
        )
    )
    compress = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, record in records.items():
            archive.writestr(name, record)


def shards(folder: Path, random: Random, base: Path) -> Case:
    state = load_file(base / "small" / "dit.safetensors")
    keys = sorted(state)
    suffix = random.choice(("safetensors", "bin"))
    stem = "diffusion_pytorch_model"
    count = random.choice((2, 2, 3, 9_999_999_999, 0))
    names = [f"{stem}-{number:05}-of-{count:05}.{suffix}" for number in (1, 2)]
    weight_map: Any = {}
    for number, name in enumerate(names):
        part = {key: state[key] for key in keys[number::2]}
        (save_file if suffix == "safetensors" else torch.save)(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    if random.random() < 0.4:
        damaged = folder / random.choice(names)
        damaged.write_bytes(bytes_of(damaged.read_bytes(), random, 4000))
    if random.random() < 0.7:
        index: Any = {"weight_map": weight_map}
        odd = random.choice(("../x", "/dev/zero", "a" * 300, "\0", "", names[0], 3, None, []))
        weight_map[random.choice(keys)] = odd
        content = json_text(index, random) if random.random() < 0.5 else dumped(index).encode()
        (folder / f"{stem}.{suffix}.index.json").write_bytes(content)
    return command("shards", folder, *RUN, "--weights", folder, "-o", "out.png")


_LORA_SUFFIXES = (
    *(
        "lora_A.weight",
        "lora_B.weight",
        "lora_down.weight",
        "lora_up.weight",
        "lora_A.x.weight",
        "lora.up.weight",
    ),
    *(
        "alpha",
        "dora_scale",
        "lora_magnitude_vector",
        "diff",
        "diff_b",
        "hada_w1_a",
        "hada_w1_b",
        "hada_w2_a",
    ),
    *(
        "hada_w2_b",
        "lokr_w1",
        "lokr_w2",
        "lokr_w2_a",
        "lokr_w2_b",
        "bias",
        "weight",
        "oft_blocks",
        "w_norm",
        "",
    ),
)
_LORA_STEMS = (
    *("double_blocks.0.img_attn_qkv", "transformer.transformer_blocks.0.attn.to_q", "lora_te1_text_model_x"),
    *(
        "lora_unet_single_blocks_0_linear1",
        "base_model.model.final_layer.linear",
        "img_in.proj",
        "txt_in",
        "x",
    ),
)


def lora(folder: Path, random: Random, base: Path) -> Case:
    state: dict[str, Tensor] = {}
    for _ in range(random.choice((1, 2, 4, 8))):
        stem, suffix = random.choice(_LORA_STEMS), random.choice(_LORA_SUFFIXES)
        shape = random.choice(
            ((), (0,), (32,), (4, 32), (96, 4), (0, 32), (96, 0), (32, 4), (4, 32, 1), (1, 96))
        )
        tensor = (
            torch.randn(shape)
            if random.random() < 0.8
            else torch.full(shape, random.choice((1e38, float("nan"))))
        )
        dtype = random.choice(
            (torch.float32,) * 5 + (torch.bfloat16, torch.int8, torch.float8_e4m3fn, torch.int64)
        )
        state[f"{stem}.{suffix}"] = tensor.to(dtype)
        if suffix == "lora_A.weight":
            state |= {
                f"{stem}.lora_A.weight": torch.randn(4, 32),
                f"{stem}.lora_B.weight": torch.randn(96, 4),
            }
    known = {"r": 4, "lora_alpha": 16, "use_rslora": False, "alpha_pattern": {"to_q": 3}, "rank_pattern": {}}
    notes = (
        {"lora_adapter_metadata": json_text(known, random).decode(errors="replace")}
        if random.random() < 0.5
        else {}
    )
    path = folder / random.choice(("l.safetensors", "a=b,c.safetensors"))
    save_file(state, path, notes)
    if random.random() < 0.3:
        (folder / "adapter_config.json").write_bytes(json_text(known, random))
    if random.random() < 0.3:
        path.write_bytes(bytes_of(path.read_bytes(), random, 2000))
    scale = random.choice(("", "=0.5", "=nan", "=1e38", "=-3", "=", "=,"))
    return command("lora", folder, *RUN, "--lora", f"{path}{scale}", "-o", "out.png")


def model_folder(folder: Path, random: Random, base: Path) -> Case:
    """A model with one of its small files damaged: configs, templates, tokenizers, text encoders."""
    copy = folder / "m"
    shutil.copytree(base / "small", copy)
    path = random.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
    content = path.read_bytes()
    if path.suffix == ".json" and random.random() < 0.7:
        path.write_bytes(json_text(json.loads(content), random))
    else:
        path.write_bytes(bytes_of(content, random, random.choice((None, 2000))))
    if random.random() < 0.2:
        code = copy / "llm" / "modeling_x.py"
        code.write_text(f"open({str(folder / 'SENTINEL')!r}, 'w')\nclass X: pass\n")
        config = copy / "llm" / "config.json"
        stated = {"model_type": "llama"}
        extra = {
            "auto_map": {"AutoModel": "modeling_x.X", "AutoConfig": "modeling_x.X"},
            "attn_implementation": "someone/kernels",
            "_attn_implementation": "someone/kernels",
            "quantization_config": {"quant_method": "bitsandbytes"},
        }
        config.write_text(json.dumps(stated | {key: extra[key] for key in random.sample(list(extra), 2)}))
    return command("model", folder, *RUN, "--model", copy, "-o", "out.png")


# Media


def media_file(folder: Path, random: Random, base: Path) -> Case:
    source = random.choice(sorted((base / "media").iterdir()))
    path = folder / f"m{source.suffix}"
    path.write_bytes(bytes_of(source.read_bytes(), random, random.choice((64, 600, None))))
    if random.random() < 0.25:
        path = path.rename(
            folder / f"m{random.choice(('.mp4', '.png', '.gif', '.webm', '.wav', '.jpg', '.json'))}"
        )
    if random.random() < 0.3:
        return command("inspect", folder, "inspect", path)
    return call("media", folder, "hostile.inputs:read_all", path)


def read_all(path: str) -> None:
    """Read a file in every way that hy does; raises HyError for what isn't one."""
    from hy_core.errors import HyError
    from hy_core.media import timeline

    errors: list[HyError] = []
    for read in (
        media.probe,
        lambda one: media.read(one, 8),
        media.read_sound,
        media.read_picture,
        timeline.measure,
        timeline.even_rate,
        lambda one: [len(part) for part in media.stream_sound(one, 16_000)],
    ):
        try:
            read(path)  # type: ignore[operator]
        except HyError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def make_media(folder: Path) -> None:
    """One small file of each kind."""
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
    for name in ("a.mp4", "a.webm", "a.gif"):
        media.write(folder / name, frames, 8.0, comment='{"hy":1}')
    for name in ("a.png", "a.jpg", "a.webp"):
        media.write(folder / name, frames[:1], 8.0)
    with wave.open(str(folder / "a.wav"), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(bytes(8000))


# Configs


def config(folder: Path, random: Random, base: Path) -> Case:
    kind = random.choice(("toml", "toml", "batch", "recipe", "pose-json", "pose-npz"))
    if kind == "toml":
        known = {"prompt": "x", "steps": 3, "size": "32x32", "frames": 1, "fps": 8.0, "cfg": 2.0, "model": "small",
                 "plugins": ["i2v"], "i2v": {"image": "x.png"}, "lora": "x", "output": "out.png"}  # fmt: skip
        path = folder / "c.toml"
        path.write_bytes(toml(known, random))
        how = [
            ("config", "check", path),
            ("generate", "x", "-c", path, "--dry-run"),
            ("config", "show", "-c", path),
        ]
        return command(kind, folder, *random.choice(how))
    if kind == "batch":
        rows = [{"prompt": "a", "seed": 1, "output": "a.png"}, {"prompt": "b", "frames": 1}]
        suffix = random.choice((".jsonl", ".toml", ".txt", ".json"))
        path = folder / f"b{suffix}"
        lines = (
            [json_text(row, random) for row in rows] if suffix != ".toml" else [toml({"clips": rows}, random)]
        )
        path.write_bytes(b"\n".join(lines))
        return command(kind, folder, "generate", "--batch", path, "--dry-run", "-o", "out/")
    if kind == "recipe":
        path = folder / "r.toml"
        path.write_bytes(toml(tomllib.loads(random.choice(RECIPES).read_text()), random))
        return command(kind, folder, "train", path, "--dry-run")
    people = {"fps": 8.0, "width": 32, "height": 32, "frames": [[[16.0, 16.0, 0.9]] * 18] * 3}
    if kind == "pose-json":
        path = folder / "p.json"
        path.write_bytes(json_text(people, random))
    else:
        path = folder / "p.npz"
        shape = random.choice(((3, 18, 2), (0, 18, 2), (3, 5), (), (3, 18, 3)))
        dtype = random.choice((np.float32, np.int64, np.complex64, np.bool_, np.dtype("U3")))
        np.savez_compressed(
            path, points=np.zeros(shape, dtype), scores=np.zeros((3, 18)), fps=random.choice((8, 0))
        )
        if random.random() < 0.6:
            path.write_bytes(bytes_of(path.read_bytes(), random))
    return call(kind, folder, "hy_avatar.pose:load", path)


def toml(data: dict[str, Any], random: Random) -> bytes:
    """A changed table as TOML, sometimes with broken text."""

    def value(one: Any, depth: int = 0) -> str:
        if depth > 40:
            return "[" * 3000 + "]" * 3000
        if isinstance(one, bool):
            return str(one).lower()
        if isinstance(one, str):
            return json.dumps(one)
        if isinstance(one, list):
            return f"[{', '.join(value(item, depth + 1) for item in one)}]"
        if isinstance(one, dict):
            return f"{{{', '.join(f'{json.dumps(key)} = {value(item, depth + 1)}' for key, item in one.items())}}}"
        return "''" if one is None else repr(one)

    changed = values_of(data, random)
    lines = [
        f"{json.dumps(key)} = {value(one)}"
        for key, one in (changed.items() if isinstance(changed, dict) else ())
    ]
    content = "\n".join(lines).encode(errors="surrogatepass")
    return bytes_of(content, random) if random.random() < 0.3 else content


# Options

_FLAGS = (
    *(
        "--size",
        "--frames",
        "--seconds",
        "--fps",
        "--steps",
        "--seed",
        "--guidance",
        "--cfg",
        "--negative",
        "--model",
    ),
    *(
        "--weights",
        "--lora",
        "--device",
        "--dtype",
        "--attention",
        "--sampler",
        "--schedule",
        "--shift",
        "--tiling",
    ),
    *("-o", "--preset", "-c", "--batch", "--rows", "--preview", "--progress", "-p", "--nonsense"),
)


def options(folder: Path, random: Random, base: Path) -> Case:
    argv = ["generate", str(random.choice(("x", "", "-x", "é" * 3000)))]
    for flag in random.sample(_FLAGS, random.choice((1, 1, 2, 3))):
        value = strange(random)
        text = value if isinstance(value, str) else dumped(value)
        good = random.choice(
            ("32x32", "1", "5", "0.5", "small", "cpu", "out.png", "euler", "999999999999", "1x1", "-5")
        )
        argv += [
            flag,
            random.choice((text, good, "%999999999d.png", "a" * 300 + ".png", "/nowhere/x.mp4", "CON:x.png")),
        ]
    argv = [one.replace("\0", "0").encode(errors="replace").decode() for one in argv]
    return command("options", folder, *argv, "--dry-run")


# Pasted commands

_PROMPTS = (
    *(
        "$(touch {0})",
        "`touch {0}`",
        "; touch {0}",
        "'; touch {0}; '",
        '"; touch {0}; "',
        "a\ntouch {0}\n",
        "\\'; touch {0} #",
    ),
    *(
        "$'\\n'; touch {0}",
        "!touch {0}",
        "| touch {0}",
        "& touch {0} &",
        "\r\ntouch {0}",
        "-o$(touch {0})",
        "\x1b[2K; touch {0}",
    ),
    *(
        "<(touch {0})",
        "${{IFS}}touch${{IFS}}{0}",
        "{{touch,{0}}}",
        "'\"'\"'$(touch {0})",
        "\\",
        "\u2028touch {0}",
    ),
)


def pasted(folder: Path, random: Random, base: Path) -> Case:
    """A picture whose record tries to leave the quotes of the command that `hy inspect --command` prints."""

    def evil() -> str:
        return random.choice(_PROMPTS).format(folder / "SENTINEL")

    request: dict[str, Any] = {
        "prompt": evil(),
        "seed": 1,
        "model": evil(),
        "plugins": [evil(), "i2v"],
        "negative": evil(),
    }
    request |= {
        "options": {"i2v": {"image": evil(), evil(): evil()}, evil(): {"x": [evil()]}},
        "lora": evil(),
    }
    if random.random() < 0.5:
        request = values_of(request, random)
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    path = folder / "p.png"
    record = dumped({"hy": 1, "request": request, "versions": {}, "weights": {evil(): evil()}})
    media.write(path, frames, 8.0, comment=record)
    return command("pasted", folder, "inspect", "--command", path)
