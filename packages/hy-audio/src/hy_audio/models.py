"""Which model a folder holds, and opening it as a maker of sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import MissingError, UsageError

if TYPE_CHECKING:
    from hy_audio.soundtrack import Maker

FOLEY = ("hunyuanvideo_foley.pth", "hunyuanvideo_foley_xl.pth")
OWN = "dit.safetensors"
STEPS, SCALE = 50, 4.5
"""Of the released Foley's sampler."""

_SEEDS = 1 << 40  # makers draw from seeds beyond this one's, which have 64 bits


def kind(folder: Path) -> str:
    """Return "foley" for a folder with the released Foley, "own" for a tri-stream DiT; imports no torch."""
    if not folder.is_dir():
        raise MissingError(f"no such folder: {folder}", "a folder with an audio model")
    if (folder / OWN).is_file():
        return "own"
    if any((folder / name).is_file() for name in FOLEY):
        return "foley"
    raise MissingError(f"no audio model in {folder}", f"it holds neither {OWN} nor {FOLEY[0]}")


def open_maker(
    folder: Path,
    prompt: str,
    negative: str | None = None,
    steps: int = STEPS,
    scale: float = SCALE,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
) -> Maker:
    """Load the model of a folder for one prompt; `negative` None takes the model's own."""
    found = kind(folder)
    if steps < 1 or not 0 <= scale <= 1000:
        raise UsageError(f"{steps} steps at a guidance of {scale:g}", "at least one step, and 0 to 1000")
    from hy_core.device import pick_device, pick_dtype

    where = pick_device(device)
    form, settings = pick_dtype(dtype, where), {"steps": steps, "scale": scale, "seed": seed % _SEEDS}
    if found == "foley":
        from hy_audio.foley.maker import NEGATIVE, FoleyMaker

        unwanted = NEGATIVE if negative is None else negative
        return FoleyMaker.load(folder, prompt, unwanted, device=where, dtype=form, **settings)
    from hy_audio.dit.maker import AudioMaker

    return AudioMaker.load(folder, prompt, negative or "", where, form, **settings)
