"""What hy-data announces: its stages."""

from __future__ import annotations

from collections.abc import Callable

from hy_core import hookimpl


@hookimpl
def register_stages(register: Callable[..., None]) -> None:
    """Register the stages of the data pipeline; each is imported when a recipe names it."""
    register("shots", "hy_data.stages.shots:Shots")
    register("sensitive", "hy_data.stages.sensitive:Sensitive")
    register("text", "hy_data.stages.text:Text")
    register("faces", "hy_data.stages.faces:Faces")
    register("caption", "hy_data.stages.caption:Caption")
    register("camera-motion", "hy_data.stages.camera_motion:CameraMotion")
    register("embedding", "hy_data.stages.embedding:Embedding")
    register("signature", "hy_data.stages.embedding:SignatureStage")
