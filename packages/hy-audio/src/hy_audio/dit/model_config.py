"""The configuration file of a tri-stream model's folder: `audio.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from hy_core.files import write_json
from hy_core.tables import bounded, check_fields, from_table, read_json

CONFIG_FILE = "audio.json"


@dataclass(frozen=True)
class PixelFeaturesConfig:
    """Features of frames without an encoder: see `hy_audio.encoders.pixels`.

    `colours` and `motion`: sides in pixels; `sync_rate`: frames a second of the timing features.
    """

    colours: int = bounded(8, 1, 256)
    motion: int = bounded(16, 1, 256)
    sync_rate: float = bounded(25.0, 0.1, 240)

    def __post_init__(self) -> None:
        check_fields(self, "pixels")


@dataclass(frozen=True)
class AudioModelConfig:
    """The file `audio.json` of a model's folder.

    `seconds`: longest window; `shift`: of the schedule; `steps` and `cfg`: defaults of sampling; `pixels`: features of
    frames without an encoder; `text_encoder`: the core's model whose language model encodes prompts, and
    `text_encoder_hash` its fingerprint in training. `UsageError` for values out of range.
    """

    seconds: float = bounded(8.0, 0.05, 600)
    shift: float = bounded(1.0, 1e-3, 1000)
    steps: int = bounded(50, 1, 1000)
    cfg: float = bounded(4.5, 0, 1000)
    pixels: PixelFeaturesConfig | None = None
    text_encoder: str | None = None
    text_encoder_hash: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, CONFIG_FILE)

    @classmethod
    def read(cls, folder: Path) -> AudioModelConfig:
        """Read the file of a folder, the defaults if there is none; a one-line `UsageError` if it is damaged."""
        path = folder / CONFIG_FILE
        return from_table(cls, read_json(path), str(path)) if path.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        table = {name: value for name, value in asdict(self).items() if value is not None}
        write_json(folder / CONFIG_FILE, table)
