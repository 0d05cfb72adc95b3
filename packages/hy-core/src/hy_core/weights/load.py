"""Load a DiT, a VAE or a plugin's modules: from the file straight to where they run, one copy in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hy_core.dit.config import DiTConfig
from hy_core.dit.model import DiT
from hy_core.dit.ports import port_owner
from hy_core.errors import HyError
from hy_core.vae import VAE, VAEConfig
from hy_core.weights import fp8
from hy_core.weights.detect import CheckpointFormat, detect, dit_config, vae_config
from hy_core.weights.files import find, load_state, metadata
from hy_core.weights.strict import fill

Config = TypeVar("Config", DiTConfig, VAEConfig)


def load_dit(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: DiTConfig | None = None,
    owned: Callable[[str], bool] | None = None,
) -> DiT:
    """Load a DiT from a file or folder in the official, diffusers or ComfyUI layout.

    The configuration is `config`, or what the file or the config.json beside it says, or what the shapes
    show. The network is built without memory and takes each tensor as it is mapped from the file, or
    converted and moved one by one; `dtype` None keeps the file's, of an 8-bit file bfloat16. HyError, in one line,
    if anything doesn't fit. Keys that are `owned` by a plugin are left to it (see `load_owned`).
    """
    path = _inside(Path(path), "transformer", "transformers")
    state = load_state(path)
    layout = detect(_shapes(state))
    state = {key: value for key, value in layout.strip(state).items() if not (owned and owned(key))}
    config = config or _dit_config(path, state, layout)
    with torch.device("meta"):
        dit = DiT(config)
    what = f"the DiT weights of {path}"
    source = fp8.scaled(find(path), state, layout.table.source)
    fill(dit, state, what, source, device=device, dtype=dtype or _dtype(state))
    return dit


def read_dit_config(path: str | Path) -> DiTConfig:
    """The configuration that `load_dit` takes from a file or folder; the weights are mapped, not read."""
    path = _inside(Path(path), "transformer", "transformers")
    state = load_state(path)
    layout = detect(_shapes(state))
    return _dit_config(path, layout.strip(state), layout)


def _dit_config(path: Path, state: Mapping[str, Tensor], layout: CheckpointFormat) -> DiTConfig:
    return _written(path, "dit", DiTConfig.from_dict) or dit_config(_shapes(state), layout.table)


def load_owned(path: str | Path, owned: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of a DiT's checkpoint that a plugin owns, by their names there: mapped, not read.

    Some checkpoints hold a plugin's modules beside the base network's.
    """
    state = load_state(_inside(Path(path), "transformer", "transformers"))
    try:
        state = detect(_shapes(state)).strip(state)
    except HyError:
        return {}
    return {key: value for key, value in state.items() if owned(key)}


def load_vae(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: VAEConfig | None = None,
) -> VAE:
    """Load a VAE from a file or folder, official or diffusers; as `load_dit` otherwise."""
    path = _inside(Path(path), "vae")
    state = _vae_state(path)
    config = config or _vae_config(path, state)
    with torch.device("meta"):
        vae = VAE(config)
    fill(vae, state, f"the VAE weights of {path}", device=device, dtype=dtype or _dtype(state))
    return vae


def read_vae_config(path: str | Path) -> VAEConfig:
    """The configuration that `load_vae` takes from a file or folder; the weights are mapped, not read."""
    path = _inside(Path(path), "vae")
    return _vae_config(path, _vae_state(path))


def _vae_state(path: Path) -> dict[str, Tensor]:
    state = load_state(path)
    if any(key.startswith("vae.") for key in state):
        return {key.removeprefix("vae."): value for key, value in state.items() if key.startswith("vae.")}
    return state


def _vae_config(path: Path, state: Mapping[str, Tensor]) -> VAEConfig:
    return _written(path, "vae", VAEConfig.from_dict) or vae_config(_shapes(state))


def load_port_weights(dit: DiT, name: str, path: str | Path) -> None:
    """Load the modules that plugin `name` attached to a DiT: all of them, and nothing else, from one file."""
    keys = [key for key in dit.state_dict() if port_owner(key) == name]
    if not keys:
        raise HyError(f"plugin {name!r} has attached no modules, but there are weights for it at {path}")
    state = load_state(path)
    fill(
        dit, state, f"the weights of plugin {name!r} at {path}", device=dit.device, dtype=dit.dtype, keys=keys
    )


def _inside(path: Path, *names: str) -> Path:
    """The folder of that part, if a model's whole folder was given."""
    return next((path / name for name in names if (path / name).is_dir()), path)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """The one that most of the numbers have: some files keep a few layers in another."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.dtype not in fp8.DTYPES:
            sizes[tensor.dtype] += tensor.numel()
    return sizes.most_common(1)[0][0] if sizes else torch.float32


def _written(path: Path, part: str, read: Callable[[Mapping[str, Any]], Config]) -> Config | None:
    """The configuration that the file itself, or a config.json beside it, states; None if none does."""
    file = find(path)
    if text := metadata(file).get("config"):
        return read(_json(text, file))
    beside = file.parent / "config.json"
    if not beside.is_file():
        return None
    data = _json(beside.read_text(encoding="utf-8"), beside)
    data = data.get(part, data)
    return read(data) if isinstance(data, dict) and _KEYS[part] & set(data) else None


#: What tells a config of that part from the config of something else that lies beside the weights.
_KEYS = {
    "dit": {"num_attention_heads", "hidden_size", "width"},
    "vae": {"block_out_channels", "latent_channels"},
}


def _json(text: str, where: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        raise HyError(f"the config of {where} is no JSON", hint="copy or fetch it again") from None
    return data if isinstance(data, dict) else {}
