"""What hy-data announces: its stages, sources of training clips, and rewriters of prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hy_core import hookimpl


@hookimpl
def register_stages(register: Callable[..., None]) -> None:
    """Register the stages of the data pipeline; each is imported when a recipe names it."""
    register("probe", "hy_data.stages.probe:Probe")
    register("shots", "hy_data.stages.shots:Shots")
    register("sharp-start", "hy_data.stages.sharp_start:SharpStart")
    register("borders", "hy_data.stages.borders:Borders")
    register("quality", "hy_data.stages.quality:Quality")
    register("aesthetics", "hy_data.stages.aesthetics:Aesthetics")
    register("motion", "hy_data.stages.motion:Motion")
    register("sensitive", "hy_data.stages.sensitive:Sensitive")
    register("text", "hy_data.stages.text:Text")
    register("faces", "hy_data.stages.faces:Faces")
    register("overlay", "hy_data.stages.overlay:Overlay")
    register("objects", "hy_data.stages.objects:Objects")
    register("dover", "hy_data.stages.dover:Dover")
    register("caption", "hy_data.stages.caption:Caption")
    register("camera-motion", "hy_data.stages.camera_motion:CameraMotion")
    register("embedding", "hy_data.stages.embedding:Embedding")
    register("signature", "hy_data.stages.embedding:SignatureStage")


@hookimpl
def register_rewriters(register: Callable[..., None]) -> None:
    """Register the back-ends of --rewrite for addresses and for folders of language models."""
    register("endpoint", "hy_data.rewriting.endpoint:EndpointRewriter")
    register("language-model", "hy_data.rewriting.language_model:LanguageModelRewriter")


@hookimpl
def register_objectives(register: Callable[..., None]) -> None:
    """Register the fine-tuning of a language model as a rewriter."""
    register("rewriter-lora", "hy_data.rewriting.objective:RewriterTuning")


@hookimpl
def register_recipes(register: Callable[..., None]) -> None:
    """Register the recipes of hy-train in `training_recipes`."""
    for path in sorted(Path(__file__).with_name("training_recipes").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Register the sources of hy-train: a folder of clips with captions, and a set."""
    register("folder", "hy_data.sources.training:FolderSource")
    register("set", "hy_data.sources.training:SetTrainingSource")
