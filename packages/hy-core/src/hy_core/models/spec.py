"""What is known of a model before its weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Defaults:
    """A model's recommended settings. `guidance` None: not distilled; `shift` None: adapted to the steps."""

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
    """A model's description, read without loading weights.

    `layout` is "pocket" (config.json, dit.safetensors, vae.safetensors, llm/, clip/), "official" or
    "diffusers"; `dit` and `vae` are the files or folders of their weights; `config` holds the contents of the
    folder's config files by network ("dit", "vae").
    """

    name: str
    folder: Path
    layout: str
    dit: Path
    vae: Path
    defaults: Defaults
    config: Mapping[str, Any] = field(default_factory=dict)
