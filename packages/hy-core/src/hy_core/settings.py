"""Where the values of a run come from: flags, environment, files, presets, the model; each with its origin.

A key is the same word everywhere: `--steps`, `HY_STEPS`, `steps =` in TOML; for a plugin `--i2v-image`,
`HY_I2V_IMAGE`, `[i2v] image =`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hy_core import options
from hy_core.errors import MissingError, UsageError
from hy_core.options import option
from hy_core.request import Request

FRAMES_PER_GROUP = 4


@dataclass(frozen=True)
class Core:
    """The settings of `hy generate` itself; None means that the model says."""

    size: str | None = option(None, metavar="WxH", help="Width and height in pixels, multiples of 16.")
    frames: int | None = option(None, minimum=1, help="Number of frames, 4k+1; 1 makes a picture.")
    seconds: float | None = option(None, minimum=0, help="Length in place of --frames.")
    fps: float | None = option(None, minimum=0, help="Frames per second.")
    steps: int | None = option(None, minimum=1, help="Sampling steps.")
    seed: int | None = option(None, minimum=0, help="Same seed, same video; drawn and shown if not given.")
    guidance: float | None = option(None, help="Embedded guidance of distilled models.")
    cfg: float | None = option(None, help="Classifier-free guidance; 1 is off.")
    negative: str | None = option(None, metavar="TEXT", help="What should not be seen (with --cfg over 1).")
    model: str = option("pocket", metavar="NAME|FOLDER", help="The model.")
    weights: str | None = option(
        None, metavar="FILE", help="Another network for the model, such as one you trained."
    )
    lora: str | None = option(
        None, metavar="FILE[=SCALE]", help="Low-rank weights to add to the network; more with commas."
    )
    device: str = option("auto", metavar="NAME", help="cpu, cuda, cuda:1, mps.")
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", help="Number format of the network.")
    attention: Literal["auto", "sdpa", "flash2", "flash3", "flex", "matmul"] = option(
        "auto", help="Attention back-end (hy doctor tells which work)."
    )
    sampler: str | None = option(
        None, metavar="NAME", help="euler, heun or stochastic; the model's own if not given."
    )
    schedule: Literal["shifted", "linear-quadratic"] = option("shifted", help="How the steps are spaced.")
    shift: float | None = option(None, help="Shift of the schedule; adapts to the steps if not given.")
    tiling: Literal["auto", "off", "official", "diffusers"] = option("auto", help="Tiles of the decoder.")
    compile: bool = option(False, help="Compile the network: slow start, faster steps.")
    output: str | None = option(
        None,
        metavar="FILE|FOLDER/",
        help="Where to: .mp4 .webm .gif, %03d.png for pictures, .png .jpg .webp with --frames 1.",
    )


CORE = {one.name: one for one in options.fields(Core)}
# What may differ from row to row of a batch; the rest belongs to the loaded model.
ROW = (
    *("size", "frames", "seconds", "fps", "steps", "seed", "guidance", "cfg", "negative"),
    *("sampler", "schedule", "shift", "output"),
)
WORDS = ("prompt", "plugins", "requires")


class Value(NamedTuple):
    """A value and where it came from."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Layer:
    """One source of values: `core` by setting, `tables` by plugin, and how its keys are called in errors.

    `base` is the folder that relative paths mean; `text` says that all values are strings (environment).
    """

    origin: str
    core: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    prompt: str | None = None
    base: Path | None = None
    text: bool = False
    strict: bool = True

    def label(self, key: str, table: str | None = None) -> str:
        """What an error calls a key of this layer."""
        if self.origin == "flags":
            return options.flag(table, key) if table else f"--{key}"
        if self.text:
            return variable(key, table)
        return f"{self.origin}: [{table}] {key}" if table else f"{self.origin}: {key}"

    def origin_of(self, key: str, table: str | None = None) -> str:
        """Where a value came from, in the words of `hy config show`."""
        return self.label(key, table) if self.origin == "flags" or self.text else self.origin


class Settings:
    """Layers, the strongest first, merged key by key."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)

    def above(self, layer: Layer) -> Settings:
        """The same with one stronger layer on top."""
        return Settings([layer, *self.layers])

    @property
    def prompt(self) -> str | None:
        """The prompt that a file gives, if any."""
        return next((layer.prompt for layer in self.layers if layer.prompt is not None), None)

    @property
    def plugins(self) -> list[str]:
        """The plugins named, in order, each once."""
        return list(dict.fromkeys(name for layer in self.layers for name in layer.plugins))

    def where(self, key: str) -> int | None:
        """The index of the strongest layer that sets a core key."""
        return next((at for at, layer in enumerate(self.layers) if key in layer.core), None)

    def core(self, key: str) -> Value:
        """A core value: checked, paths made absolute, with its origin."""
        one, at = CORE[key], self.where(key)
        if at is None:
            return Value(one.default, "default")
        layer = self.layers[at]
        value = one.check(layer.core[key], layer.label(key), text=layer.text)
        if layer.base is not None and key in ("output", "model", "weights"):
            value = beside(layer.base, value, must_exist=key == "model")
        if layer.base is not None and key == "lora" and value:
            value = ",".join(str(beside(layer.base, part.strip())) for part in value.split(","))
        return Value(value, layer.origin_of(key))

    def options(self, name: str, kind: type) -> tuple[Any, dict[str, Value]]:
        """A plugin's frozen options, and each field with its origin."""
        values, labels, origins = {}, {}, {}
        for one in options.fields(kind):
            for layer in self.layers:
                table = layer.tables.get(name, {})
                if one.name not in table:
                    continue
                label = layer.label(one.name, name)
                value = one.check(table[one.name], label, text=layer.text)
                if layer.base is not None:
                    value = rebased(value, layer.base)
                values[one.name], labels[one.name] = value, label
                origins[one.name] = layer.origin_of(one.name, name)
                break
        made = options.parse(name, kind, values, labels)
        shown = options.plain(made)
        return made, {key: Value(shown[key], origins.get(key, "default")) for key in shown}

    def check(self, kinds: Mapping[str, type], known: Iterable[str]) -> None:
        """Refuse unknown keys: `kinds` are the options of the plugins in use, `known` all plugin names."""
        known = [*known, *kinds]
        for layer in self.layers:
            for key in layer.core:
                if key not in CORE:
                    raise unknown(layer.label(key), key, [*CORE, *WORDS, *known])
            for name, table in layer.tables.items():
                if name in kinds:
                    fields = [one.name for one in options.fields(kinds[name])]
                    for key in table:
                        if key not in fields:
                            raise unknown(layer.label(key, name), key, fields)
                elif name not in known:
                    raise unknown(f"{layer.origin}: [{name}]", name, [*known, *CORE])
                elif layer.strict:
                    raise UsageError(
                        f"{layer.origin}: [{name}] is set, but the plugin {name} is not in use",
                        f'add plugins = ["{name}"] to the file, or -p {name}',
                    )


def unknown(label: str, word: str, words: Sequence[str]) -> UsageError:
    """The error for a key that nobody knows."""
    near = difflib.get_close_matches(word, words, 1, 0.6)
    return UsageError(f"{label}: unknown key", f"did you mean {near[0]}?" if near else None)


# -- sources ---------------------------------------------------------------------------------------------


def read_file(path: Path, origin: str | None = None, strict: bool = True) -> Layer:
    """A TOML file as a layer; `UsageError` names the file and the line of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    return read_toml(text, origin or str(path), path.resolve().parent, strict)


def read_toml(text: str, origin: str, base: Path | None, strict: bool = True) -> Layer:
    """TOML text as a layer; relative paths in it mean `base`."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{origin} is not valid TOML: {error}") from None
    return as_layer(values, origin, base, strict)


def as_layer(values: Mapping[str, Any], origin: str, base: Path | None, strict: bool = True) -> Layer:
    """Plain values (a TOML file, a row of a batch) as a layer."""
    requires, plugins, prompt = values.get("requires", []), values.get("plugins", []), values.get("prompt")
    for key, words in (("requires", requires), ("plugins", plugins)):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{origin}: {key}: needs a list of words")
    if prompt is not None and not isinstance(prompt, str):
        raise UsageError(f"{origin}: prompt: needs text")
    check_requires(requires, origin)
    local = [str(base / name) if base and name.endswith(".py") else name for name in plugins]
    rest = {key: value for key, value in values.items() if key not in WORDS}
    return Layer(
        origin,
        {key: value for key, value in rest.items() if not isinstance(value, dict)},
        {key: value for key, value in rest.items() if isinstance(value, dict)},
        tuple(local),
        prompt,
        base,
        strict=strict,
    )


def check_requires(requires: Iterable[str], origin: str) -> None:
    """Raise `MissingError` naming the first distribution that is absent or of the wrong version."""
    if not requires:
        return
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import InvalidRequirement, Requirement

    for line in requires:
        try:
            need = Requirement(line)
        except InvalidRequirement:
            raise UsageError(f'{origin}: requires: "{line}" is not like "hy-dawn>=0.1"') from None
        hint = f'pip install "{line}"'
        try:
            have = version(need.name)
        except PackageNotFoundError:
            raise MissingError(f"{origin} requires {line}, which is not installed", hint) from None
        if not need.specifier.contains(have, prereleases=True):
            raise MissingError(f"{origin} requires {line}, but {need.name} {have} is installed", hint)


def variable(key: str, table: str | None = None) -> str:
    """The environment variable of a key: HY_STEPS, HY_I2V_IMAGE."""
    return "_".join(["HY", *([table] if table else []), key]).upper().replace("-", "_")


def environment(kinds: Mapping[str, type], environ: Mapping[str, str] | None = None) -> Layer:
    """The `HY_*` variables that are settings; empty ones count as unset."""
    environ = os.environ if environ is None else environ

    def found(keys: Iterable[str], table: str | None = None) -> dict[str, str]:
        return {key: environ[variable(key, table)] for key in keys if environ.get(variable(key, table))}

    tables = {name: found([one.name for one in options.fields(kind)], name) for name, kind in kinds.items()}
    return Layer("environment", found(CORE), {n: t for n, t in tables.items() if t}, text=True)


def user_file() -> Path:
    """The user's own config.toml (it need not exist)."""
    import click

    return Path(click.get_app_dir("hy")) / "config.toml"


def user_layer() -> Layer | None:
    """The user's config.toml, if there is one; tables of plugins not in use are fine there."""
    path = user_file()
    return read_file(path, strict=False) if path.is_file() else None


def preset_layer(name: str, known: Mapping[str, Path]) -> Layer:
    """A preset by name, among those that the core and the plugins registered."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there is: {', '.join(known)}"
        raise UsageError(f"no preset {name!r}", hint)
    return read_file(known[name], f"preset {name}")


def beside(base: Path, value: str | None, must_exist: bool = False) -> str | None:
    """A path of a file's setting, which means the file's own folder; names that are no path stay."""
    if not value or value.startswith("~") or Path(value).is_absolute():
        return str(Path(value).expanduser()) if value else value
    path = base / value
    if must_exist and not path.exists():
        return value
    return f"{path}{'/' if value.endswith('/') else ''}"


def rebased(value: Any, base: Path) -> Any:
    """Relative paths among a plugin's values, seen from `base`."""
    if isinstance(value, Path):
        return base / value.expanduser()
    if isinstance(value, list | tuple):
        return type(value)(rebased(one, base) for one in value)
    return value


# -- towards a request -----------------------------------------------------------------------------------


def parse_size(text: str, label: str = "--size") -> tuple[int, int]:
    """`WxH` as (width, height)."""
    width, _, height = text.lower().replace("×", "x").partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise UsageError(f"{label}: {text!r} is not like 960x544 (width x height)") from None


def request(
    settings: Settings,
    prompt: str,
    defaults: Mapping[str, Any],
    plugins: Sequence[str] = (),
    plugin_options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Request:
    """The request that the layers describe; `defaults` are the model's own (by names of `Request`).

    `seed` is taken when no layer sets one.
    """
    values: dict[str, Any] = {key: settings.core(key).value for key in CORE if key != "output"}
    for key in ("fps", "steps", "guidance", "cfg", "negative", "shift", "sampler"):
        if values[key] is None:
            values[key] = defaults.get(key)
    if values["size"] is None:
        values["width"], values["height"] = defaults["width"], defaults["height"]
    else:
        at = settings.where("size")
        label = settings.layers[at].label("size") if at is not None else "--size"
        values["width"], values["height"] = parse_size(values["size"], label)
    values["frames"] = frame_count(settings, values, defaults)
    if values["seed"] is None:
        values["seed"] = seed
    values["negative"] = values["negative"] or ""
    values["sampler"] = values["sampler"] or "euler"
    values["cfg"] = 1.0 if values["cfg"] is None else values["cfg"]
    for gone in ("size", "seconds"):
        del values[gone]
    return Request(prompt=prompt, plugins=tuple(plugins), options=dict(plugin_options or {}), **values)


def frame_count(settings: Settings, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> int:
    """Frames, or seconds turned into the nearest valid number of them; the stronger layer wins."""
    frames, seconds = settings.where("frames"), settings.where("seconds")
    if frames is not None and frames == seconds:
        layer = settings.layers[frames]
        raise UsageError(
            f"{layer.label('frames')} and {layer.label('seconds')} both say how long", "give one of them"
        )
    if seconds is None or (frames is not None and frames < seconds):
        return defaults["frames"] if values["frames"] is None else values["frames"]
    groups = round((values["seconds"] * values["fps"] - 1) / FRAMES_PER_GROUP)
    return FRAMES_PER_GROUP * max(groups, 0) + 1
