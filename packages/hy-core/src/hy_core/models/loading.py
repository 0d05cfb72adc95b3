"""A loaded model, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import HyError, MissingError
from hy_core.lora_option import loras
from hy_core.models.attaching import Attachments
from hy_core.models.finding import POCKET, find
from hy_core.models.hashing import fingerprints_of
from hy_core.models.precisions import precision
from hy_core.models.spec import Defaults, ModelSpec

if TYPE_CHECKING:
    import torch

    from hy_core.conditioner import Conditioner
    from hy_core.dit import DiT
    from hy_core.text import TextEncoder
    from hy_core.vae import VAE


@dataclass
class Model:
    """A loaded model. `text()` loads the text encoders; use it in a `with`, which frees them.

    `hashes` are the fingerprints of its weights. `folder` holds its parts and `file` its DiT, if they were read from
    files. `tiling` ("official" or "diffusers") is how its decoder tiles clips that don't fit into memory whole.
    """

    name: str
    dit: DiT
    vae: VAE
    text: Callable[[], TextEncoder]
    defaults: Defaults = Defaults()
    hashes: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    file: Path | None = None
    tiling: str = "official"
    _attachments: Attachments = field(default_factory=Attachments, repr=False)
    _compiled: bool = False

    @property
    def device(self) -> torch.device:
        """The device of the DiT."""
        return self.dit.device

    def attached(self, conditioners: Sequence[Conditioner]) -> AbstractContextManager[dict[str, str]]:
        """Hold the conditioners' modules attached for the time of a `with`, which gives their fingerprints."""
        return self._attachments.using(self, conditioners)

    def compile(self) -> None:
        """Compile the DiT block by block, once; its first steps are slow, the rest faster."""
        if not self._compiled:
            for block in (*self.dit.double_blocks, *self.dit.single_blocks):
                block.compile()
        self._compiled = True


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    weights: str | None = None,
    lora: str | None = None,
    conditioners: Sequence[Conditioner] = (),
) -> Model:
    """Load a model's DiT and VAE to where they run; the text encoders are loaded when a prompt is encoded.

    `weights` is a file or folder with another DiT to use in place of the model's own; `lora` is one or more files of
    low-rank weights that are added to it ("FILE", "FILE=0.8", with commas between).

    Tensors of the DiT's checkpoint that belong to one of the `conditioners` are left out (see `Conditioner.owns_key`).

    `dtype` "auto" is bfloat16 on a GPU (its VAE runs in float16, as the official one) and float32 on a CPU; a
    pocket model runs in float32 everywhere. MissingError, with what to fetch, if weights are missing.
    """
    from hy_core.weights import load_dit, load_vae
    from hy_core.weights.lora import merge

    spec = find(name, weights)
    for what, path in (("transformer", spec.dit), ("VAE", spec.vae)):
        if not path.exists():
            raise MissingError(
                f"the model {spec.name!r} has no {what} weights: {path} is missing", _fetch(spec)
            )
    kinds = precision(spec.layout, device, dtype)

    def text() -> TextEncoder:
        from hy_core.text import TextEncoder  # transformers: only when a prompt is encoded

        return TextEncoder.load(spec.folder, kinds.device, kinds.text)

    def owned(key: str) -> bool:
        return any(conditioner.owns_key(key, spec.folder) for conditioner in conditioners)

    dit = load_dit(spec.dit, kinds.device, kinds.dit, owned=owned).eval().requires_grad_(False)
    for path, scale in loras(lora) if lora else ():
        merge(dit, path, scale)
    vae = load_vae(spec.vae, kinds.device, kinds.vae).eval().requires_grad_(False)
    if dit.config.out_channels != vae.config.latent_channels:
        raise HyError(
            f"{spec.dit} makes latents of {dit.config.out_channels} channels, and {spec.vae} decodes "
            f"{vae.config.latent_channels}",
            "use the DiT and the VAE of one model",
        )
    return Model(
        name=spec.name,
        dit=dit,
        vae=vae,
        text=text,
        defaults=spec.defaults,
        hashes=fingerprints_of(spec, lora),
        folder=spec.folder,
        file=spec.dit,
        tiling="diffusers" if spec.layout == "diffusers" else "official",
    )


def _fetch(spec: ModelSpec) -> str:
    if spec.folder == POCKET:
        return "this hy-core was installed without its weights: install the wheel of hy-core again"
    return "the folder is incomplete: copy or fetch it again"
