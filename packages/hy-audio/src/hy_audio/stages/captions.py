"""One structured caption from what a sound captioner and a music captioner say."""

from __future__ import annotations

import unicodedata
from typing import Any

from hy_core.data import ClipRecord, Stage

_MOST = 600  # characters of one caption
_NOTHING = {"", "none", "no music", "no sound", "silence", "n/a"}


class SoundCaption(Stage):
    """Merge `sound_caption` and `music_caption` into `audio_caption`, as the paper does when there are both.

    The result is {"sound": ..., "music": ..., "text": ...} with the parts that there are; nothing is rejected.
    """

    name = "sound-caption"

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `audio_caption`."""
        caption = merged(
            record.results.get("sound_caption"),
            record.results.get("music_caption"),
            record.results.get("audio_class"),
        )
        return ({"audio_caption": caption} if caption else {}), None


def merged(sound: Any = None, music: Any = None, kind: Any = None) -> dict[str, str]:
    """One caption out of two; either may be missing. What the clip's class rules out is left out."""
    parts = {"sound": cleaned(sound), "music": cleaned(music)}
    if kind == "pure music":
        parts["sound"] = "" if parts["music"] else parts["sound"]
    elif kind in ("pure sound", "sound with speech"):
        parts["music"] = "" if parts["sound"] else parts["music"]
    parts = {name: text for name, text in parts.items() if text}
    if len(parts) == 2:
        parts["text"] = f"Sound: {parts['sound']} Music: {parts['music']}"
    elif parts:
        parts["text"] = next(iter(parts.values()))
    return parts


def cleaned(text: Any) -> str:
    """A caption as one sentence: no control characters, no line breaks, at most 600 characters, a full stop."""
    if not isinstance(text, str):
        return ""
    plain = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in text[: 4 * _MOST])
    plain = " ".join(plain.split())
    if plain.rstrip(".").lower() in _NOTHING:
        return ""
    if len(plain) > _MOST:
        plain = plain[:_MOST].rsplit(" ", 1)[0]
    return plain if plain[-1] in ".!?。！？" else plain + "."
