"""Write a trained DiT as a model folder, in the layout that training started from."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hy_core.errors import UsageError
from hy_core.files import write_json
from hy_core.models import ModelSpec
from hy_core.weights import save_safetensors
from hy_core.weights.convert import convert_dit
from torch import Tensor

_LARGE = 64 << 20
_OFFICIAL = (
    "text_encoder",
    "text_encoder_2",
    "text_encoder_i2v",
    "llava_llama_image",
    "whisper-tiny",
    "det_align",
)


def check_vae(base: ModelSpec, vae: str) -> None:
    """Raise `UsageError` for a VAE of its own in a layout that has no place for it."""
    if vae and base.layout != "pocket":
        raise UsageError(
            f"data.vae = {vae!r}: {base.folder} is in the {base.layout} layout and keeps its own VAE",
            "remove data.vae",
        )


def write_model(
    base: ModelSpec,
    folder: Path,
    state: Mapping[str, Tensor],
    dit: Mapping[str, Any],
    name: str,
    vae: str = "",
) -> None:
    """Write a folder for `hy generate --model FOLDER`: the DiT of `state`, and the other parts of `base`.

    `state` holds tensors of any shape under our names, `dit` is the configuration, `vae` a folder with another VAE.
    Large files that stay are linked where the file system allows it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if base.layout == "pocket":
        save_safetensors(folder / "dit.safetensors", state)
        config = {**base.config, "name": name, "dit": dict(dit)}
        if vae:
            config["vae"] = json.loads((Path(vae) / "vae.json").read_text(encoding="utf-8"))
        link(Path(vae) / "vae.safetensors" if vae else base.vae, folder / "vae.safetensors")
        for part in ("llm", "clip"):
            link(base.folder / part, folder / part)
        write_json(folder / "config.json", config)
        return
    with tempfile.TemporaryDirectory(prefix=".hy-export-", dir=folder) as place:
        ours = Path(place) / "dit.safetensors"
        save_safetensors(ours, state, {"config": json.dumps(dict(dit))})
        if base.layout == "diffusers":
            for path in sorted(base.folder.iterdir()):
                if path.resolve() != base.dit.resolve():
                    link(path, folder / path.name)
            convert_dit(ours, folder / base.dit.name, "diffusers")
            return
        home, inner = base.folder, base.dit.parent
        where = folder / inner.name
        link(base.vae, where / base.vae.name)
        for part in _OFFICIAL:
            if (home / part).exists():
                link(home / part, folder / part)
        (where / "transformers").mkdir(parents=True, exist_ok=True)
        convert_dit(ours, where / "transformers" / "mp_rank_00_model_states.pt", "official")
        if (base.dit / "config.json").is_file():
            link(base.dit / "config.json", where / "transformers" / "config.json")


def link(source: Path, target: Path) -> None:
    """Copy a file, or a folder of files; large files are hard links where the file system allows it."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for one in source.iterdir():
            link(one, target / one.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and os.path.samefile(source, target):
        return
    target.unlink(missing_ok=True)
    if source.stat().st_size < _LARGE:  # configurations, which somebody may edit
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
