"""Detect the audio model of a folder, and load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import MissingError, UsageError

if TYPE_CHECKING:
    from hy_audio.soundtrack import AudioGenerator

FOLEY = ("hunyuanvideo_foley.pth", "hunyuanvideo_foley_xl.pth")
OWN = "dit.safetensors"
POCKET = Path(__file__).with_name("pocket")
"""The embedded model, the default."""

_SEEDS = 1 << 40  # generators multiply a seed by 1,000,003 for each window, within 64 bits


def kind(model: Path | None) -> str:
    """Return "foley" for a folder with the released Foley, "own" for a tri-stream DiT, without importing torch.

    None is `POCKET`. `MissingError` if there is no model.
    """
    if model is None and not (POCKET / OWN).is_file():
        raise MissingError(
            "this hy-audio has no model of its own",
            "give the folder of one: what hy train pocket-audio-dit exports, or the released Foley",
        )
    folder = model or POCKET
    if not folder.is_dir():
        raise MissingError(f"no such folder: {folder}", "give one with an audio model, or none for pocket")
    if (folder / OWN).is_file():
        return "own"
    if any((folder / name).is_file() for name in FOLEY):
        return "foley"
    raise MissingError(f"no audio model in {folder}", f"it holds neither {OWN} nor {FOLEY[0]}")


def load_generator(
    model: Path | None,
    prompt: str,
    negative: str | None = None,
    steps: int | None = None,
    cfg: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
) -> AudioGenerator:
    """Load the model of a folder, or `POCKET`, for one prompt.

    `negative`, `steps` and `cfg` (guidance) None are the model's own.
    """
    found, folder = kind(model), model or POCKET
    if steps is not None and steps < 1:
        raise UsageError(f"{steps} steps", "at least one")
    if cfg is not None and not 0 <= cfg <= 1000:
        raise UsageError(f"a guidance of {cfg:g}", "0 to 1000")
    from hy_core.device import pick_device, pick_dtype

    where = pick_device(device)
    form = pick_dtype(dtype, where)
    seed %= _SEEDS
    if found == "foley":
        from hy_audio.foley.generator import NEGATIVE, FoleyAudioGenerator

        return FoleyAudioGenerator.load(
            folder, prompt, NEGATIVE if negative is None else negative, device=where, dtype=form,
            steps=50 if steps is None else steps, cfg=4.5 if cfg is None else cfg, seed=seed,
        )  # fmt: skip
    from hy_audio.dit.generator import DiTAudioGenerator

    return DiTAudioGenerator.load(
        folder, prompt, negative or "", where, form, steps=steps, cfg=cfg, seed=seed
    )
