"""Where the values of a run come from: flags, environment, files, presets, the model; each with its origin."""

from __future__ import annotations

from hy_core.settings.core import CORE, ROW, WORDS, Core
from hy_core.settings.layers import Layer, Settings, Value, unknown, variable
from hy_core.settings.paths import beside, rebased
from hy_core.settings.requests import frame_count, parse_size, request, with_rate
from hy_core.settings.sources import (
    as_layer,
    check_requires,
    environment,
    preset_layer,
    read_file,
    user_file,
    user_layer,
)

__all__ = [
    "CORE",
    "ROW",
    "WORDS",
    "Core",
    "Layer",
    "Settings",
    "Value",
    "as_layer",
    "beside",
    "check_requires",
    "environment",
    "frame_count",
    "parse_size",
    "preset_layer",
    "read_file",
    "rebased",
    "request",
    "unknown",
    "user_file",
    "user_layer",
    "variable",
    "with_rate",
]
