"""From merged settings to a `Request`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hy_core.errors import UsageError
from hy_core.request import Request
from hy_core.settings.core import CORE
from hy_core.settings.layers import Settings
from hy_core.tables import shown

FRAMES_PER_GROUP = 4
LONGEST_SIDE = 1 << 16  # pixels
MOST_FRAMES = 1_000_001


def parse_size(text: str, label: str = "--size") -> tuple[int, int]:
    """`WxH` as (width, height)."""
    width, _, height = text.lower().replace("×", "x").partition("x")
    sides = [int(side) for side in (width, height) if side.isascii() and side.isdigit() and len(side) < 7]
    if len(sides) != 2:
        raise UsageError(f"{label}: {shown(text)} is not like 960x544 (width x height)")
    if max(sides) > LONGEST_SIDE:
        raise UsageError(f"{label}: {text} is larger than {LONGEST_SIDE} pixels")
    return sides[0], sides[1]


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
    for gone in ("size", "seconds", "rewrite", "rewrite_mode"):
        del values[gone]
    return Request(prompt=prompt, plugins=tuple(plugins), options=dict(plugin_options or {}), **values)


def with_rate(settings: Settings, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's defaults with the frame rate that is set: plugins choose the number of frames by it."""
    fps = settings.core("fps").value
    return dict(defaults) if fps is None else {**defaults, "fps": fps}


def frame_count(settings: Settings, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> int:
    """Frames, or seconds turned into the nearest valid number of them; the stronger layer wins."""
    frames, seconds = settings.where("frames"), settings.where("seconds")
    if frames is not None and frames == seconds:
        layer = settings.layers[frames]
        raise UsageError(
            f"{layer.label('frames')} and {layer.label('seconds')} both say how long", "give one of them"
        )
    if seconds is None or (frames is not None and frames < seconds):
        chosen: int = defaults["frames"] if values["frames"] is None else values["frames"]
        return chosen
    if values["seconds"] * values["fps"] > MOST_FRAMES:
        raise UsageError(f"{settings.layers[seconds].label('seconds')}: {values['seconds']:g} is too long")
    groups: int = round((values["seconds"] * values["fps"] - 1) / FRAMES_PER_GROUP)
    return FRAMES_PER_GROUP * max(groups, 0) + 1
