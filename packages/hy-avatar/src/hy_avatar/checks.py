"""Checks of the avatar's options before anything is loaded; no torch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hy_core.errors import HyError, UsageError
from hy_core.options import flag

if TYPE_CHECKING:
    from hy_avatar.plugin import Avatar

log = logging.getLogger(__name__)

DEPENDENT = {
    "speech": ("strength", "speech_gate", "whisper"),
    "expression": ("expression_strength", "face_codec"),
    "pose": ("pose_strength", "pose_person", "pose_fit", "dwpose"),
}
"""Options without effect unless the option of the key is given."""


def check_speakers(avatar: Avatar) -> None:
    """Check `speaker` and `mask`: one per driven face, not both, and `speaker` in the right form."""
    from hy_avatar.speakers import Choice

    options = avatar.options
    for name, values in (("speaker", options.speaker), ("mask", options.mask)):
        if values and len(values) != options.faces_driven:
            raise avatar.error(name, f"{len(values)} given for {options.faces_driven} driven faces")
    if options.speaker and options.mask:
        raise avatar.error("mask", "--avatar-speaker chooses the place already; drop one of them")
    for text in options.speaker:
        try:
            Choice.read(text)
        except UsageError as error:
            raise avatar.error("speaker", error.message) from None


def check_files(avatar: Avatar) -> None:
    """Check that all files exist, that speech is finite sound, and that poses and expressions have frames."""
    from hy_avatar import pose, sound

    options = avatar.options
    for name, paths in (
        ("speech", options.speech),
        ("mask", options.mask),
        ("whisper", [options.whisper]),
        ("weights", [options.weights]),
        ("pose", [options.pose]),
        ("expression", [options.expression]),
        ("dwpose", [options.dwpose]),
        ("face_codec", [options.face_codec]),
    ):
        for path in paths:
            try:
                found = path is None or path.exists()
            except (OSError, ValueError):  # a name that no file can have
                found = False
            if not found:
                raise avatar.error(
                    name,
                    f"no such file or folder: {str(path)!r}"
                    if not str(path).isprintable()
                    else f"no such file or folder: {path}",
                )
    lengths = [("speech", path, sound.seconds) for path in options.speech]
    lengths += [
        (name, path, pose.seconds)
        for name, path in (("pose", options.pose), ("expression", options.expression))
        if path
    ]
    for name, path, seconds in lengths:
        try:
            if not seconds(path):
                raise avatar.error(name, f"{path} has no {'sound' if name == 'speech' else 'frames'}")
        except UsageError:
            raise
        except HyError as error:
            raise avatar.error(name, error.message) from None


def warn_of_unused(avatar: Avatar) -> None:
    """Warn of options that have no effect because the option they belong to isn't given."""
    options = avatar.options
    for driver, names in DEPENDENT.items():
        unused = [name for name in names if getattr(options, name) != getattr(type(options), name)]
        if unused and not getattr(options, driver):
            log.warning(
                "%s has no effect without %s", flag(avatar.name, unused[0]), flag(avatar.name, driver)
            )
