"""Which model a folder holds, and opening it as a maker of sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import MissingError, UsageError

if TYPE_CHECKING:
    from hy_audio.soundtrack import Maker

FOLEY = ("hunyuanvideo_foley.pth", "hunyuanvideo_foley_xl.pth")
OWN = "dit.safetensors"
POCKET = Path(__file__).with_name("pocket")
"""The model that comes along: an own one, which is taken where none is named."""

_SEEDS = 1 << 40  # makers draw from seeds beyond this one's, which have 64 bits


def kind(model: Path | None) -> str:
    """Return "foley" for a folder with the released Foley, "own" for a tri-stream DiT; imports no torch.

    None is `POCKET`. MissingError if there is no model.
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


def open_maker(
    model: Path | None,
    prompt: str,
    negative: str | None = None,
    steps: int | None = None,
    scale: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
) -> Maker:
    """Load the model of a folder, or `POCKET`, for one prompt.

    `negative`, `steps` and `scale` (guidance) None are the model's own.
    """
    found, folder = kind(model), model or POCKET
    if steps is not None and steps < 1:
        raise UsageError(f"{steps} steps", "at least one")
    if scale is not None and not 0 <= scale <= 1000:
        raise UsageError(f"a guidance of {scale:g}", "0 to 1000")
    from hy_core.device import pick_device, pick_dtype

    where = pick_device(device)
    form = pick_dtype(dtype, where)
    given = {"steps": steps, "scale": scale, "seed": seed % _SEEDS}
    settings = {name: value for name, value in given.items() if value is not None}
    if found == "foley":
        from hy_audio.foley.maker import NEGATIVE, FoleyMaker

        unwanted = NEGATIVE if negative is None else negative
        return FoleyMaker.load(folder, prompt, unwanted, device=where, dtype=form, **settings)
    from hy_audio.dit.maker import AudioMaker

    return AudioMaker.load(folder, prompt, negative or "", where, form, **settings)
