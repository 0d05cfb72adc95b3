"""Write sound alone: WAV and FLAC."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import Existing, Staging, storage_errors

from hy_audio.containers import SOUNDS

_MAX_WAV_BYTES = (1 << 32) - 4096


def write_sound(
    path: Path | str, pieces: Iterable[np.ndarray], rate: int, existing: Existing = "replace"
) -> Path:
    """Write WAV or FLAC of 16 bits from pieces, float32 [channels, n] in [-1, 1] at `rate` Hz, and return the path.

    The file appears complete or not at all. `HyError` for a WAV over 4 GB, `UsageError` for no pieces.
    """
    path = Path(path)
    try:
        import soundfile
    except ImportError as error:
        raise MissingError("WAV and FLAC need soundfile", 'pip install "hy-audio"') from error
    form, kind = SOUNDS[path.suffix.lower()]
    out, written = None, 0
    with Staging(existing) as staging, storage_errors(path):
        temporary = staging.file(path)
        try:
            for piece in pieces:
                if out is None:
                    out = soundfile.SoundFile(str(temporary), "w", rate, piece.shape[0], kind, format=form)
                written += 2 * piece.size
                if form == "WAV" and written > _MAX_WAV_BYTES:
                    raise HyError(f"{path}: a WAV holds 4 GB at most", "name a .flac")
                out.write(np.clip(piece.T, -1, 1))
        except (OSError, soundfile.LibsndfileError) as problem:
            raise HyError(f"cannot write {path}: {problem}") from problem
        finally:
            if out is not None:
                out.close()
        if out is None:
            raise UsageError(f"no sound to write to {path}")
    return staging.files[0]
