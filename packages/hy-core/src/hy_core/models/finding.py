"""Find a model by name or folder and describe it, without torch and without reading weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.errors import MissingError
from hy_core.models.spec import Defaults, ModelSpec
from hy_core.tables import from_table, read_json

if TYPE_CHECKING:
    from hy_core.dit import DiTConfig
    from hy_core.vae import VAEConfig

FOLDERS = "HY_MODELS"
"""Environment variable: a folder of model folders, found by name."""

POCKET = Path(__file__).parents[1] / "pocket"
"""The folder of the built-in model."""
OFFICIAL = ("hunyuan-video-t2v-720p", "hunyuan-video-i2v-720p")
"""Names of the official project's folders with transformer and VAE, inside the folder that `find` takes."""

# Default negative prompts (used with --cfg over 1) of the official text-to-video and image-to-video code.
NEGATIVE = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth, "
    "bad eyes, bad limbs, distortion"
)
NEGATIVE_I2V = "deformation, a poor composition and deformed video, bad teeth, bad eyes, bad limbs"


def defaults(name: str) -> Defaults:
    """The defaults of a model by name or folder; MissingError if there is none. Needs no torch."""
    return find(name).defaults


def find(name: str, weights: str | None = None) -> ModelSpec:
    """Find a model by name ("pocket", or one in $HY_MODELS) or folder. Needs no torch, reads no weights.

    `weights` is a file or folder with another DiT, which takes the place of the model's own.
    """
    spec = _find(name)
    if weights is None:
        return spec
    config = {part: table for part, table in spec.config.items() if part != "dit"}
    return replace(spec, dit=Path(weights), config=config)


def _find(name: str) -> ModelSpec:
    if name == "pocket":
        return _pocket(name, POCKET)
    shelf = os.environ.get(FOLDERS)
    places = [Path(name).expanduser(), *([Path(shelf) / name] if shelf else [])]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        where = f" or in {FOLDERS}={shelf}" if shelf else ""
        raise MissingError(
            f"no model {name!r} here{where}", f"give a model's folder, or put it into one and set {FOLDERS}"
        )
    if (folder / "model_index.json").is_file():
        return _diffusers(name, folder)
    if (folder / "config.json").is_file() and any(
        (folder / part).exists() for part in ("dit.safetensors", "llm")
    ):
        return _pocket(name, folder)
    for inner in (folder, *(folder / part for part in OFFICIAL)):
        if (inner / "transformers").is_dir() and (inner / "vae").is_dir():
            home = folder if inner != folder or (folder / "text_encoder").is_dir() else folder.parent
            written = inner / "vae" / "config.json"
            config = {"vae": _read(written)} if written.is_file() else {}
            if (file := inner / "transformers" / "config.json").is_file():
                config["dit"] = _read(file)
            # HunyuanVideo-Avatar is not guidance-distilled; it is detected by this folder.
            is_avatar = (home / "llava_llama_image").is_dir()
            settings = Defaults(negative=NEGATIVE_I2V if inner.resolve().name == OFFICIAL[1] else NEGATIVE)
            if is_avatar:
                settings = replace(settings, fps=25.0, guidance=None, cfg=7.5, shift=5.0)
            return ModelSpec(name, home, "official", inner / "transformers", inner / "vae", settings, config)
    raise MissingError(
        f"{folder} holds no model that hy knows",
        "expected hunyuan-video-t2v-720p/ (official), model_index.json (diffusers), or config.json (pocket)",
    )


def _pocket(name: str, folder: Path) -> ModelSpec:
    config = _read(folder / "config.json")
    settings = from_table(Defaults, config.get("defaults", {}), f"{folder / 'config.json'}: defaults")
    dit, vae = folder / "dit.safetensors", folder / "vae.safetensors"
    return ModelSpec(config.get("name", name), folder, "pocket", dit, vae, settings, config)


def _diffusers(name: str, folder: Path) -> ModelSpec:
    dit = _read(folder / "transformer" / "config.json")
    schedule = folder / "scheduler" / "scheduler_config.json"
    shift = _read(schedule).get("shift") if schedule.is_file() else None
    # Every conversion writes 7, which our rule gives at 50 steps too; any other value was chosen on purpose.
    shift = None if shift in (7, 1) else shift
    distilled = dit.get("guidance_embeds", False)
    # The image-to-video network that takes the picture by channels was made for neither kind of guidance.
    cfg = 6.0 if dit.get("in_channels", 16) == dit.get("out_channels", 16) else 1.0
    settings = Defaults(shift=shift) if distilled else Defaults(shift=shift, guidance=None, cfg=cfg)
    config = {"dit": dit, "vae": _read(folder / "vae" / "config.json")}
    return ModelSpec(name, folder, "diffusers", folder / "transformer", folder / "vae", settings, config)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise MissingError(f"{path} is missing", "the model's folder is incomplete: copy or fetch it again")
    return read_json(path)


def configs(spec: ModelSpec) -> tuple[DiTConfig, VAEConfig]:
    """The shapes of a model's networks, from its config files, its weights' headers, or else the released ones."""
    from hy_core.dit import DiTConfig
    from hy_core.vae import VAEConfig
    from hy_core.weights.load import read_dit_config, read_vae_config

    def read_config(part: str, path: Path, kind: Any, read: Callable[[Path], Any]) -> Any:
        if (table := spec.config.get(part)) is not None:
            return kind.from_dict(table)
        try:
            return read(path)
        except MissingError:
            return kind()

    dit = read_config("dit", spec.dit, DiTConfig, read_dit_config)
    return dit, read_config("vae", spec.vae, VAEConfig, read_vae_config)
