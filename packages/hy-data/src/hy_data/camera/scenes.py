"""Scenes of textured rectangles in space: a photograph with cut-outs before it, or a room with boxes.

A rectangle is drawn by its homography, exactly K R (t n^T/d) in other words; what is nearer is drawn later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hy_data.camera.moves import Path


@dataclass(frozen=True)
class Surface:
    """A textured rectangle.

    `texture` uint8 [h, w]; `alpha` uint8 [h, w], None for opaque; `corner` [3], where the first texel lies; `right` and
    `down` [3] from a texel to the next. `endless` continues the texture by mirroring; `one_sided` hides its back;
    `moves` [3] is how far the rectangle itself moves during the clip.
    """

    texture: np.ndarray
    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray
    alpha: np.ndarray | None = None
    endless: bool = False
    one_sided: bool = False
    moves: np.ndarray | None = None


@dataclass(frozen=True)
class Scene:
    """Groups of surfaces from far to near; the camera's first rotation [3, 3]; depths for moves and orbits."""

    surfaces: Sequence[Surface]
    look: np.ndarray
    depth: float
    pivot: float


def photo_scene(
    images: Sequence[np.ndarray], rng: np.random.Generator, *, flat: bool, size: tuple[int, int]
) -> Scene:
    """Put a photograph (the first) behind 1 to 3 cut-outs of others, the nearest in the middle; `flat` for none.

    `images` uint8 [h, w]; `size` (height, width) of the pictures to be. In a third of the scenes the background is
    slanted.
    """
    turn = rng.uniform(-15, 15, 2) * (rng.random() < 0.35)
    surfaces = [_backdrop(images[0], rng, np.radians(turn), size)]
    depths: list[float] = [] if flat else sorted(rng.uniform(0.35, 0.8, rng.integers(1, 4)), reverse=True)
    for depth in depths:
        reach = 0.1 if depth == depths[-1] else 0.32
        surfaces.append(_cutout(images[int(rng.integers(len(images)))], rng, depth, size, reach))
    if rng.random() < 0.35:  # something that moves by itself
        mover = _cutout(
            images[int(rng.integers(len(images)))], rng, rng.uniform(0.5, 0.95), size, 0.32, scale=0.7
        )
        way = rng.normal(size=2)
        shift = way / np.linalg.norm(way) * rng.uniform(0.1, 0.6)
        surfaces.append(
            Surface(
                mover.texture, mover.corner, mover.right, mover.down, mover.alpha, moves=np.append(shift, 0.0)
            )
        )
    return Scene(surfaces, np.eye(3), 1.0, depths[-1] if depths else 1.0)


def room_scene(images: Sequence[np.ndarray], rng: np.random.Generator) -> Scene:
    """Return a room: floor, walls, ceiling and 2 to 5 boxes, each with a photograph on it. `images` uint8 [h, w]."""
    half, height, near = rng.uniform(0.7, 1.4), rng.uniform(0.25, 0.5), -0.6
    eye = rng.uniform(0.35, 0.65) * height  # above the floor

    def texture() -> np.ndarray:
        image = images[int(rng.integers(len(images)))]
        scale = 256 / max(image.shape)
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    def wall(corner: Sequence[float], right: Sequence[float], down: Sequence[float]) -> Surface:
        image = texture()
        return Surface(
            image, np.array(corner), np.array(right) / image.shape[1], np.array(down) / image.shape[0]
        )

    floor, top, length = eye, eye - height, 1.0 - near
    surfaces = [
        wall((-half, top, 1.0), (2 * half, 0, 0), (0, height, 0)),
        wall((-half, floor, 1.0), (2 * half, 0, 0), (0, 0, -length)),
        wall((-half, top, near), (2 * half, 0, 0), (0, 0, length)),
        wall((-half, top, near), (0, 0, length), (0, height, 0)),
        wall((half, top, 1.0), (0, 0, -length), (0, height, 0)),
    ]
    places = sorted(rng.uniform(0.4, 0.9, rng.integers(2, 6)), reverse=True)
    for z in places:
        x = rng.uniform(-0.35, 0.35) * z
        surfaces += _box(wall, x, floor, z, rng)
    tilt = rng.uniform(-0.05, 0.15)
    look = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return Scene(surfaces, look, 0.75, float(places[-1]))


def _box(
    wall: Callable[..., Surface], x: float, floor: float, z: float, rng: np.random.Generator
) -> list[Surface]:
    wide, deep, high = rng.uniform(0.06, 0.16), rng.uniform(0.03, 0.08), rng.uniform(0.08, 0.25)
    angle = rng.uniform(-0.6, 0.6)
    along = np.array([np.cos(angle), 0, np.sin(angle)]) * wide
    back = np.array([-np.sin(angle), 0, np.cos(angle)]) * deep
    corner = np.array([x, floor - high, z]) - along / 2 - back / 2
    up = np.array([0, high, 0])
    sides = [
        wall(corner, along, up),
        wall(corner + along, back, up),
        wall(corner + along + back, -along, up),
        wall(corner + back, -back, up),
        wall(corner + back, along, -back),
    ]
    return [Surface(one.texture, one.corner, one.right, one.down, one_sided=True) for one in sides]


def render(scene: Scene, path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures, uint8 [T, height, width], that a camera takes on its path."""
    height, width = size
    half = max(size) / 2
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    pictures = np.zeros((len(path.focal), height, width), np.uint8)
    share = np.linspace(0, 1, len(path.focal))
    for picture, at, turned, focal, position in zip(
        pictures, share, path.rotation, path.focal, path.position, strict=True
    ):
        lens = np.array([[focal * half, 0, (width - 1) / 2], [0, focal * half, (height - 1) / 2], [0, 0, 1]])
        rotation = turned @ scene.look
        eye = scene.look.T @ position
        for one in scene.surfaces:
            corner = one.corner - eye + (0 if one.moves is None else one.moves * at)
            if one.one_sided and np.cross(one.right, one.down) @ corner < 0:
                continue
            _draw(picture, one, lens @ rotation @ np.stack([one.right, one.down, corner], 1), (x, y))
    return pictures


def _draw(
    picture: np.ndarray, one: Surface, homography: np.ndarray, grid: tuple[np.ndarray, np.ndarray]
) -> None:
    """Draw a surface over a picture, in place."""
    size = picture.shape[1], picture.shape[0]
    if one.endless:
        way = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REFLECT_101}
        cv2.warpPerspective(one.texture, homography, size, dst=picture, **way)
        return
    height, width = one.texture.shape
    corners = homography @ np.array([[-1, -1, 1], [width, -1, 1], [-1, height, 1], [width, height, 1]]).T
    is_behind = corners[2].min() <= 1e-6
    if not is_behind:  # draw only where it is
        places = corners[:2] / corners[2]
        left, top = np.clip(np.floor(places.min(1)).astype(int), 0, size)
        right, bottom = np.clip(np.ceil(places.max(1)).astype(int) + 1, 0, size)
        if left >= right or top >= bottom:
            return
        picture = picture[top:bottom, left:right]
        homography = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ homography
        size = picture.shape[1], picture.shape[0]
    alpha = np.full(one.texture.shape, 255, np.uint8) if one.alpha is None else one.alpha
    drawn = cv2.warpPerspective(one.texture, homography, size, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpPerspective(alpha, homography, size)
    if is_behind:  # there the homography shows it upside down
        back = np.linalg.inv(homography)[2]
        cover[back[0] * grid[0] + back[1] * grid[1] + back[2] <= 0] = 0
    part = cover.astype(np.uint16)
    picture[:] = (drawn * part + picture * (255 - part) + 127) // 255


def _backdrop(
    image: np.ndarray, rng: np.random.Generator, turn: np.ndarray, size: tuple[int, int]
) -> Surface:
    """The photograph as an endless plane through (0, 0, 1), some of it within the picture."""
    cover = rng.uniform(0.55, 0.95)  # of the photograph's fitting part that the picture shows
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1]) / cover
    return _placed(_scaled(image, scale * 1.3), np.array([0, 0, 1.0]), 0.5 / 1.3, size, turn, endless=True)


def _cutout(
    image: np.ndarray,
    rng: np.random.Generator,
    depth: float,
    size: tuple[int, int],
    reach: float,
    scale: float = 1.0,
) -> Surface:
    """A blob of a photograph at a depth, off the middle by at most `reach`."""
    share = rng.uniform(0.18, 0.5) * scale
    long = max(size) * share * 1.2
    texture = _scaled(image, max(long / min(image.shape), 0.1))
    side = int(min(long, *texture.shape))
    top, left = (int(rng.integers(0, length - side + 1)) for length in texture.shape)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(rng.normal() / k * np.sin(k * angles + rng.uniform(0, 6.3)) for k in range(2, 6))
    radius = side * 0.36 * (1 + 0.25 * waves)
    narrow = rng.uniform(0.6, 1.0)
    outline = np.stack([side / 2 + narrow * radius * np.cos(angles), side / 2 + radius * np.sin(angles)], 1)
    blob = np.zeros((side, side), np.uint8)
    cv2.fillPoly(blob, [outline.astype(np.int32)], 255)
    alpha = np.asarray(cv2.GaussianBlur(blob, (3, 3), 0.7), np.uint8)
    place = rng.uniform(-reach, reach, 2) * np.array([1.0, size[0] / size[1]]) * depth
    texture = np.ascontiguousarray(texture[top : top + side, left : left + side])
    return _placed(texture, np.array([*place, depth]), 0.5 * depth / 1.2, size, np.zeros(2), alpha)


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=way)


def _placed(
    texture: np.ndarray,
    centre: np.ndarray,
    spread: float,
    size: tuple[int, int],
    turn: np.ndarray,
    alpha: np.ndarray | None = None,
    endless: bool = False,
) -> Surface:
    """A texture about a centre, turned by yaw and pitch; its texels are 2 `spread` over the longer side's pixels."""
    texel = 2 * spread / max(size)
    right = np.array([np.cos(turn[0]), 0, np.sin(turn[0])]) * texel
    down = np.array([0, np.cos(turn[1]), np.sin(turn[1])]) * texel
    corner = centre - right * (texture.shape[1] - 1) / 2 - down * (texture.shape[0] - 1) / 2
    return Surface(texture, corner, right, down, alpha, endless)
