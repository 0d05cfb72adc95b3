"""The models that `hy` can run: find one, tell its defaults, load it. Torch is imported only to load."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.device import pick_device, pick_dtype
from hy_core.errors import HyError, MissingError
from hy_core.lora_option import loras
from hy_core.tables import from_table, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hy_core.conditioner import Conditioner
    from hy_core.dit import DiT, DiTConfig, Port
    from hy_core.request import Request
    from hy_core.text import TextEncoder
    from hy_core.vae import VAE, VAEConfig

    Attached = list[tuple[Port, str]]

FOLDERS = "HY_MODELS"
"""Environment variable: a folder of model folders, found by name."""

POCKET = Path(__file__).with_name("pocket")
OFFICIAL = ("hunyuan-video-t2v-720p", "hunyuan-video-i2v-720p")
"""What the official project calls the folder of its transformer and VAE, inside the one that is passed."""

# What the official text-to-video and image-to-video code guides away from (with --cfg over 1) if it isn't told.
NEGATIVE = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth, "
    "bad eyes, bad limbs, distortion"
)
NEGATIVE_I2V = "deformation, a poor composition and deformed video, bad teeth, bad eyes, bad limbs"

SAMPLED = 64
"""Blocks of 1 MiB that a fingerprint of a large file reads."""


@dataclass(frozen=True)
class Defaults:
    """What a model is best asked for. `guidance` None: it takes none; `shift` None: as the steps want it."""

    width: int = 1280
    height: int = 720
    frames: int = 129
    fps: float = 24.0
    steps: int = 50
    guidance: float | None = 6.0
    cfg: float = 1.0
    shift: float | None = None
    negative: str = ""
    sampler: str = "euler"


@dataclass(frozen=True)
class ModelSpec:
    """A model that was found, described without loading it.

    `layout` is "pocket" (config.json, dit.safetensors, vae.safetensors, llm/, clip/), "official" or
    "diffusers"; `dit` and `vae` are where their weights lie; `config` is what the folder's own config files
    say of them, if they do.
    """

    name: str
    folder: Path
    layout: str
    dit: Path
    vae: Path
    defaults: Defaults
    config: Mapping[str, Any] = field(default_factory=dict)


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
    config = {part: said for part, said in spec.config.items() if part != "dit"}
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
            if (stated := inner / "transformers" / "config.json").is_file():
                config["dit"] = _read(stated)
            # Of the official models the one that speaks isn't distilled; this folder tells it.
            speaks = (home / "llava_llama_image").is_dir()
            given = Defaults(negative=NEGATIVE_I2V if inner.resolve().name == OFFICIAL[1] else NEGATIVE)
            if speaks:
                given = replace(given, fps=25.0, guidance=None, cfg=7.5, shift=5.0)
            return ModelSpec(name, home, "official", inner / "transformers", inner / "vae", given, config)
    raise MissingError(
        f"{folder} holds no model that hy knows",
        "expected hunyuan-video-t2v-720p/ (official), model_index.json (diffusers), or config.json (pocket)",
    )


def _pocket(name: str, folder: Path) -> ModelSpec:
    config = _read(folder / "config.json")
    given = from_table(Defaults, config.get("defaults", {}), f"{folder / 'config.json'}: defaults")
    dit, vae = folder / "dit.safetensors", folder / "vae.safetensors"
    return ModelSpec(config.get("name", name), folder, "pocket", dit, vae, given, config)


def _diffusers(name: str, folder: Path) -> ModelSpec:
    dit = _read(folder / "transformer" / "config.json")
    schedule = folder / "scheduler" / "scheduler_config.json"
    shift = _read(schedule).get("shift") if schedule.is_file() else None
    # 7 is what every conversion writes down: our rule says so too at 50 steps. Another was chosen.
    shift = None if shift in (7, 1) else shift
    distilled = dit.get("guidance_embeds", False)
    # The image-to-video network that takes the picture by channels was made for neither kind of guidance.
    cfg = 6.0 if dit.get("in_channels", 16) == dit.get("out_channels", 16) else 1.0
    given = Defaults(shift=shift) if distilled else Defaults(shift=shift, guidance=None, cfg=cfg)
    config = {"dit": dit, "vae": _read(folder / "vae" / "config.json")}
    return ModelSpec(name, folder, "diffusers", folder / "transformer", folder / "vae", given, config)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise MissingError(f"{path} is missing", "the model's folder is incomplete: copy or fetch it again")
    return read_json(path)


def configs(spec: ModelSpec) -> tuple[DiTConfig, VAEConfig]:
    """The shapes of a model's networks, as its config files tell them, or else those of the weights; none are read.

    Where there are no weights yet, a network that no file tells of is taken for the released one.
    """
    from hy_core.dit import DiTConfig
    from hy_core.vae import VAEConfig
    from hy_core.weights.load import read_dit_config, read_vae_config

    def told(part: str, path: Path, kind: Any, read: Callable[[Path], Any]) -> Any:
        if (said := spec.config.get(part)) is not None:
            return kind.from_dict(said)
        try:
            return read(path)
        except MissingError:
            return kind()

    dit = told("dit", spec.dit, DiTConfig, read_dit_config)
    return dit, told("vae", spec.vae, VAEConfig, read_vae_config)


@dataclass
class Model:
    """A loaded model. `text` loads the encoders at each call; use it in a `with`, which frees them."""

    name: str
    dit: DiT
    vae: VAE
    text: Callable[[], TextEncoder]
    defaults: Defaults = Defaults()
    hashes: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """Where its parts lie, if they came from files."""
    file: Path | None = None
    """Where its DiT was read from."""
    tiling: str = "official"
    """The tiles its decoder takes when a clip doesn't fit into memory whole: "official" or "diffusers"."""
    _extended: dict[str, tuple[Conditioner, Attached]] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)
    _compiled: bool = False

    @property
    def device(self) -> torch.device:
        """Where the DiT runs."""
        return self.dit.device

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of all weights that are in it now, those of plugins too, by what they are."""
        return {**self.hashes, **self._fingerprints}

    def extend(self, conditioners: Sequence[Conditioner]) -> None:
        """Attach the modules of these conditioners, with their weights, and take those of all others out.

        What is attached stays for the next run with the same conditioner or equal options, so that a model
        that is used again doesn't load the same weights again.
        """
        wanted = {conditioner.name: conditioner for conditioner in conditioners}
        for name, (old, _) in list(self._extended.items()):
            new = wanted.get(name)
            if new is not old and (type(new) is not type(old) or new.options != old.options):
                _detach(self._extended.pop(name)[1])
                self._fingerprints.pop(_plugin(name), None)
        for name, conditioner in wanted.items():
            if name not in self._extended:
                self._attach(name, conditioner)

    def compile(self) -> None:
        """Compile the DiT block by block, once; its first steps are slow, the rest faster."""
        if not self._compiled:
            for block in (*self.dit.double_blocks, *self.dit.single_blocks):
                block.compile()
        self._compiled = True

    def _attach(self, name: str, conditioner: Conditioner) -> None:
        import torch

        from hy_core.dit import Port

        ports = [module for module in self.dit.modules() if isinstance(module, Port)]
        before = [set(port) for port in ports]

        def attached() -> Attached:
            return [
                (port, key) for port, old in zip(ports, before, strict=True) for key in port if key not in old
            ]

        file = conditioner.weights(self.folder)
        own = {} if file else self._owned(conditioner)
        try:
            if own:
                conditioner.attach_from_checkpoint(self.dit, own, self.folder)
            else:
                with (
                    torch.device("meta") if file else nullcontext()
                ):  # shapes only, when values come from a file
                    conditioner.attach(self.dit, self.folder)
            if file:
                from hy_core.weights import load_port_weights

                load_port_weights(self.dit, name, file)
        except BaseException:
            _detach(attached())
            raise
        self._extended[name] = conditioner, attached()
        if file:
            self._fingerprints[_plugin(name)] = fingerprint(Path(file))
        for port, key in attached():
            port[key].to(self.dit.device, self.dit.dtype).eval().requires_grad_(False)

    def _owned(self, conditioner: Conditioner) -> dict[str, Tensor]:
        """What a conditioner owns of the checkpoint that the DiT came from."""
        from hy_core.conditioner import Conditioner

        if self.file is None or type(conditioner).owns_key is Conditioner.owns_key:
            return {}
        from hy_core.weights import load_owned

        return load_owned(self.file, lambda key: conditioner.owns_key(key, self.folder))


def _detach(attached: Attached) -> None:
    for port, key in attached:
        port.detach(key)


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

    What `conditioners` own of the DiT's checkpoint is left to them (see `Conditioner.owns_key`).

    `dtype` "auto" is bfloat16 on a GPU (its VAE runs in float16, as the official one) and float32 on a CPU; a
    pocket model runs in float32 everywhere. MissingError, with what to fetch, if weights are missing.
    """
    from hy_core.text import TextEncoder
    from hy_core.weights import load_dit, load_vae
    from hy_core.weights.lora import merge

    spec = find(name, weights)
    for what, path in (("transformer", spec.dit), ("VAE", spec.vae)):
        if not path.exists():
            raise MissingError(
                f"the model {spec.name!r} has no {what} weights: {path} is missing", _fetch(spec)
            )
    kinds = precision(spec.layout, device, dtype)
    encoders = spec.folder

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
        text=lambda: TextEncoder.load(encoders, kinds.device, kinds.text),
        defaults=spec.defaults,
        hashes=_hashes(spec, lora),
        folder=spec.folder,
        file=spec.dit,
        tiling="diffusers" if spec.layout == "diffusers" else "official",
    )


def fingerprints(request: Request, conditioners: Sequence[Conditioner] = ()) -> dict[str, str]:
    """What `Model.prints` of the model that a request asks for would be; no weights are loaded."""
    spec = find(request.model, request.weights)
    found = _hashes(spec, request.lora)
    for conditioner in conditioners:
        if file := conditioner.weights(spec.folder):
            found[_plugin(conditioner.name)] = fingerprint(Path(file))
    return found


def _hashes(spec: ModelSpec, lora: str | None) -> dict[str, str]:
    found = {"dit": fingerprint(spec.dit), "vae": fingerprint(spec.vae)}
    return found | {f"lora {path.name}": fingerprint(path) for path, _ in (loras(lora) if lora else ())}


def _plugin(name: str) -> str:
    return f"plugin {name}"


def _fetch(spec: ModelSpec) -> str:
    if spec.folder == POCKET:
        return "this hy-core was installed without its weights: install the wheel of hy-core again"
    return "the folder is incomplete: copy or fetch it again"


@dataclass(frozen=True)
class Precision:
    """Where a model runs, and the number format of each of its networks."""

    device: torch.device
    dit: torch.dtype
    vae: torch.dtype
    text: torch.dtype


def precision(layout: str, device: str = "auto", dtype: str = "auto") -> Precision:
    """Choose device and number formats; UsageError for what isn't there."""
    import torch

    where = pick_device(device)
    dit = torch.float32 if layout == "pocket" and dtype == "auto" else pick_dtype(dtype, where)
    if where.type == "cpu" or dit == torch.float32:
        return Precision(where, dit, dit, torch.float32)
    # The released VAE and language model run in float16, and bfloat16's 8 bits show in a decoded picture.
    return Precision(where, dit, torch.float16, torch.float16)


def fingerprint(path: Path) -> str:
    """A hash of weights, for provenance: of a whole small file; of size and 64 evenly spaced MiB of a large
    one.

    A folder's is the hash of those of its weight files. Not a proof against tampering, but two different
    checkpoints differ in it, and 25 GB take a moment.
    """
    if path.is_dir():
        names = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".bin", ".pth"))
        return hashlib.sha256("".join(f"{p.name}:{fingerprint(p)}\n" for p in names).encode()).hexdigest()
    about = path.stat()
    return _fingerprint(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)
def _fingerprint(path: Path, size: int, changed: int) -> str:
    """That of a file, kept as long as it isn't `changed`: each clip of a batch asks."""
    block = 1 << 20
    digest = hashlib.sha256(f"{size}:".encode() if size > SAMPLED * block else b"")
    with path.open("rb") as file:
        if size <= SAMPLED * block:
            while part := file.read(block):
                digest.update(part)
        else:
            for index in range(SAMPLED):
                file.seek(index * (size - block) // (SAMPLED - 1))
                digest.update(file.read(block))
    return digest.hexdigest()
