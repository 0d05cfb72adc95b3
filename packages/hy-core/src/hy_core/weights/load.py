"""Load a DiT, a VAE or a plugin's modules from files straight to their device, with one copy in memory."""

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
from hy_core.weights.detect import CheckpointFormat, detect, dit_config, vae_config
from hy_core.weights.files import find, load_state, metadata
from hy_core.weights.keys import Source
from hy_core.weights.quantized import FLOAT8, refuse_unsupported, with_scales
from hy_core.weights.strict import fill

Config = TypeVar("Config", DiTConfig, VAEConfig)


def load_dit(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: DiTConfig | None = None,
    owned: Callable[[str], bool] | None = None,
) -> DiT:
    """Load a DiT from a file or folder in the official, diffusers or ComfyUI format.

    The configuration is `config`, or what the file or the config.json beside it states, or what the shapes show. The
    network is built without memory; each tensor is mapped from the file, or converted to `dtype` and moved to `device`
    one by one. `dtype` None keeps the file's; of weights that are 8-bit floats throughout it is bfloat16. Keys for
    which `owned` is true are left to a plugin (see `load_owned`).

    Raises HyError, in one line, if anything doesn't fit, and MissingError if a file is missing.
    """
    path, state, form = _open_dit(path)
    state = {key: value for key, value in state.items() if not (owned and owned(key))}
    config = config or _dit_config(path, state, form)
    what = f"the DiT weights of {path}"
    _check_size(sum((config.depth_double, config.depth_single, config.depth_refiner)), state, what)
    with torch.device("meta"):
        dit = DiT(config)
    run_dtype = dtype or _dtype(state)
    state, source = with_scales(find(path), state, form.table.source)
    fill(dit, state, what, source, device=device, dtype=run_dtype)
    return dit


def read_dit_config(path: str | Path) -> DiTConfig:
    """Return the configuration that `load_dit` takes from a file or folder; the weights are mapped, not read."""
    path, state, form = _open_dit(path, verify=False)
    return _dit_config(path, state, form)


def _open_dit(path: str | Path, verify: bool = True) -> tuple[Path, dict[str, Tensor], CheckpointFormat]:
    """A DiT's checkpoint: where it is, its entries without prefix, and its format."""
    path = _inside(Path(path), "transformer", "transformers")
    state = load_state(path, verify=verify)
    refuse_unsupported(state, path)
    form = detect(state)
    return path, form.strip(state), form


def _dit_config(path: Path, state: Mapping[str, Tensor], form: CheckpointFormat) -> DiTConfig:
    return _written(path, "dit", DiTConfig.from_dict) or dit_config(_shapes(state), form.table)


def load_owned(path: str | Path, owned: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the tensors of a DiT's checkpoint for which `owned` is true, by their names there: mapped, not read.

    Some checkpoints hold a plugin's modules beside the base network's. {} if the file holds no DiT. Checksums aren't
    verified again: `load_dit` of the same file did it.

    Tensors of any shape by their names.
    """
    state = load_state(_inside(Path(path), "transformer", "transformers"), verify=False)
    try:
        state = detect(state).strip(state)
    except HyError:
        return {}
    return {key: value for key, value in state.items() if owned(key)}


def load_vae(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: VAEConfig | None = None,
) -> VAE:
    """Load a VAE from a file or folder, official or diffusers; otherwise as `load_dit`."""
    path = _inside(Path(path), "vae")
    state = _vae_state(path)
    config = config or _vae_config(path, state)
    what = f"the VAE weights of {path}"
    _check_size(len(config.channels) * config.layers, state, what)
    with torch.device("meta"):
        vae = VAE(config)
    run_dtype = dtype or _dtype(state)
    state, source = with_scales(find(path), state, lambda key: Source((key,)))
    fill(vae, state, what, source, device=device, dtype=run_dtype)
    return vae


def read_vae_config(path: str | Path) -> VAEConfig:
    """Return the configuration that `load_vae` takes from a file or folder; the weights are mapped, not read."""
    path = _inside(Path(path), "vae")
    return _vae_config(path, _vae_state(path, verify=False))


def _vae_state(path: Path, verify: bool = True) -> dict[str, Tensor]:
    """The VAE's entries without the prefix that all of them carry in some files."""
    state = load_state(path, verify=verify)
    refuse_unsupported(state, path)
    marker = "post_quant_conv.weight"
    prefixes = sorted(
        (key.removesuffix(marker) for key in state if key == marker or key.endswith(f".{marker}")), key=len
    )
    if not prefixes:
        return state
    prefix = prefixes[0]
    bare = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in bare.items() if "." in key}  # without counters


def _vae_config(path: Path, state: Mapping[str, Tensor]) -> VAEConfig:
    return _written(path, "vae", VAEConfig.from_dict) or vae_config(_shapes(state))


def load_port_weights(dit: DiT, name: str, path: str | Path) -> None:
    """Load the modules that plugin `name` attached to a DiT: all of them, and nothing else, from one file.

    Raises HyError if the plugin attached none, or if the file doesn't fit them.
    """
    keys = [key for key in dit.state_dict() if port_owner(key) == name]
    if not keys:
        raise HyError(f"plugin {name!r} has attached no modules, but there are weights for it at {path}")
    state = load_state(path)
    fill(
        dit, state, f"the weights of plugin {name!r} at {path}", device=dit.device, dtype=dit.dtype, keys=keys
    )


def _check_size(blocks: int, state: Mapping[str, Tensor], what: str) -> None:
    """Raise HyError for a configuration with more blocks than there are tensors, before it is built."""
    if blocks > len(state):
        raise HyError(
            f"{what} are {len(state):,} tensors, and the config wants {blocks:,} blocks",
            "the config has another number of blocks than the weights",
        )


def _inside(path: Path, *names: str) -> Path:
    """The folder of that part, if `path` is a model's whole folder."""
    return next((path / name for name in names if (path / name).is_dir()), path)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of most of the values that aren't 8-bit: some files keep a few layers in another."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            sizes[tensor.dtype] += tensor.numel()
    if sizes:
        return sizes.most_common(1)[0][0]
    return torch.bfloat16 if any(tensor.dtype in FLOAT8 for tensor in state.values()) else torch.float32


def _written(path: Path, part: str, read: Callable[[Mapping[str, Any]], Config]) -> Config | None:
    """The configuration that the file itself, or a config.json beside it, states; None if none does."""
    file = find(path)
    if text := metadata(file).get("config"):
        where: Path = file
        data = _json(text, where)
    else:
        where = file.parent / "config.json"
        if not where.is_file():
            return None
        data = _json(_text(where), where)
        data = data.get(part, data)
        if not (isinstance(data, dict) and _KEYS[part] & set(data)):
            return None
    try:
        return read(data)
    except HyError as error:
        raise HyError(f"{where}: {error.message}", error.hint) from None
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise HyError(f"{where} is no configuration of a {part.upper()}: {str(error)[:120]}") from None


def _text(path: Path) -> str:
    """A small text file."""
    try:
        if path.stat().st_size > _CONFIG_BYTES:
            raise HyError(f"{path} has {path.stat().st_size:,} bytes", "expected a small JSON file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise HyError(f"can't read {path}: {error}") from None


_CONFIG_BYTES = 1 << 20
#: Keys that distinguish the config of a part from other files called config.json.
_KEYS = {
    "dit": {"num_attention_heads", "hidden_size", "width"},
    "vae": {"block_out_channels", "latent_channels"},
}


def _json(text: str, where: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise HyError(f"the config of {where} is no JSON", hint="copy or fetch it again") from None
    return data if isinstance(data, dict) else {}
