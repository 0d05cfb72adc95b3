"""Describe a file or folder of weights: what it is, its variant, sizes, dtypes and hash. Nothing is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.errors import HyError

if TYPE_CHECKING:
    from torch import Tensor

_AVATAR = ("audio_proj.", "ref_in.", "double_stream_list")
"""Parts of the keys that only HunyuanVideo-Avatar's checkpoint adds."""


@dataclass(frozen=True)
class Description:
    """What a checkpoint is.

    `kind` is "DiT", "VAE", "LoRA" or what else it looks like; `format` the names it uses; `variant` what it was trained
    for as far as the weights show it; `dtypes` counts parameters by dtype; `config` holds the network's sizes.
    """

    path: str
    kind: str
    format: str
    variant: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    bytes: int
    fingerprint: str
    config: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return all fields as plain JSON types."""
        return asdict(self)


def describe(path: str | Path) -> Description:
    """Describe a checkpoint file, or the one in a folder: DiT, VAE or LoRA in any format that hy reads.

    Only headers are read, and blocks of the file for its fingerprint. Raises MissingError where there is none, HyError
    for a file that can't be read.
    """
    from hy_core.models.hashing import fingerprint
    from hy_core.weights.files import find, load_state

    file = find(Path(path))
    state = load_state(file, verify=False)
    kind, form, variant, config = _identify(file, state)
    dtypes: Counter[str] = Counter()
    for tensor in state.values():
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    size = sum(one.stat().st_size for one in _files(file))
    return Description(
        str(file),
        kind,
        form,
        variant,
        len(state),
        sum(dtypes.values()),
        dict(dtypes.most_common()),
        size,
        fingerprint(file.parent if len(_files(file)) > 1 else file),
        config,
    )


def _identify(file: Path, state: Mapping[str, Tensor]) -> tuple[str, str, str, dict[str, Any]]:
    """Kind, format, variant and sizes of a checkpoint's tensors, of any shape by their names."""
    from hy_core.weights.detect import detect
    from hy_core.weights.load import read_dit_config, read_vae_config

    try:
        form = detect(state)
    except HyError as error:
        if "encoder.down_blocks.0.resnets.0.conv1.conv.weight" in {key.removeprefix("vae.") for key in state}:
            vae = read_vae_config(file)
            return "VAE", "official", "causal 3D VAE", asdict(vae)
        try:
            return _lora(file)
        except HyError:
            raise error from None
    keys = form.strip(state)
    name = form.table.name + (f", names behind {form.prefix!r}" if form.prefix else "")
    if any(mark in key for key in keys for mark in _AVATAR):
        return "DiT", name, "HunyuanVideo-Avatar: speech-driven portraits", {}
    config = read_dit_config(file)
    return "DiT", name, _variant(config.in_channels, config.out_channels, config.guidance), config.to_json()


def _variant(channels: int, out: int, distilled: bool) -> str:
    if channels == 2 * out + 1:
        return "image to video by latent concatenation"
    if channels != out:
        return f"{channels - out} condition channels"
    if distilled:
        return "guidance-distilled: text to video, or image to video by token replacement (equal layers)"
    return "not guidance-distilled: text to video, or image to video by token replacement (equal layers)"


def _lora(file: Path) -> tuple[str, str, str, dict[str, Any]]:
    from hy_core.weights.lora.changes import rank_of
    from hy_core.weights.lora.read import read

    lora = read(file)
    ranks = Counter(rank_of(parts) for parts in lora.layers.values())
    kinds = sorted({kind for parts in lora.layers.values() for kind in parts})
    method = next(
        (
            name
            for mark, name in (("lokr", "LoKr"), ("hada", "LoHa"), ("magnitude", "DoRA"))
            if mark in " ".join(kinds)
        ),
        "LoRA",
    )
    shown = ", ".join(f"rank {rank}" if rank else "full" for rank, _ in ranks.most_common(3))
    return "LoRA", f"{len(lora.layers)} layers", f"{method}, {shown}", {"kinds": kinds}


def _files(file: Path) -> list[Path]:
    """The weight files that a path of a file or of an index of shards stands for."""
    if file.name.endswith(".index.json") or "-of-" in file.stem:
        return sorted(
            one for one in file.parent.iterdir() if one.suffix == file.suffix or one.suffix == ".safetensors"
        )
    return [file]
