"""Faces by MediaPipe 0.10, whose wheel carries its weights: boxes, and 68 points of the largest face.

Newer MediaPipe (1.0 and later) ships no weights and no `solutions`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from hy_core.errors import MissingError

# From MediaPipe's 468 points to iBUG's 68: jaw, brows, nose, eyes, outer lips, inner lips (facts, section 5).
MESH_TO_68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip


def solutions() -> ModuleType:
    """Import `mediapipe.solutions`; `MissingError` with what to install."""
    try:
        import mediapipe
    except ImportError as problem:
        raise MissingError("this needs MediaPipe", 'pip install "hy-avatar[mediapipe]"') from problem
    if not hasattr(mediapipe, "solutions"):
        version = getattr(mediapipe, "__version__", "?")
        raise MissingError(f"MediaPipe {version} has no offline models", 'pip install "mediapipe==0.10.21"')
    return mediapipe.solutions


class MediaPipeFaces:
    """Boxes of all faces: the near-range network first, the far-range one where that finds nothing."""

    def __init__(self, least_score: float = 0.5) -> None:
        detection = solutions().face_detection
        self.networks: list[Any] = [
            detection.FaceDetection(model_selection=reach, min_detection_confidence=least_score)
            for reach in (0, 1)
        ]

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Return [N, 5]: boxes in parts of the picture, and scores."""
        picture = np.ascontiguousarray(frame)
        rows: list[list[float]] = []
        for network in self.networks:
            result = network.process(picture)
            for face in result.detections or []:
                box = face.location_data.relative_bounding_box
                corners = [box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height]
                rows.append([*np.clip(corners, 0, 1), float(face.score[0])])
            if rows:
                break
        return np.array(rows, np.float64).reshape(-1, 5)


class MediaPipeLandmarks:
    """68 points of one face, frame by frame; NaN where there is none.

    Of several it is the largest at first, and then the one nearest to its last position. `crowded` counts the frames
    that showed several.
    """

    def __init__(self, least_score: float = 0.5) -> None:
        self.mesh: Any = solutions().face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=4, min_detection_confidence=least_score
        )
        self.crowded = 0
        self._last: np.ndarray | None = None

    def landmarks(self, frames: np.ndarray) -> np.ndarray:
        """Return [F, 68, 2] in pixels of frames uint8 [F, H, W, 3]."""
        height, width = frames.shape[1:3]
        points = np.full((len(frames), 68, 2), np.nan)
        for index, frame in enumerate(frames):
            result = self.mesh.process(np.ascontiguousarray(frame))
            faces = [
                np.array([(point.x * width, point.y * height) for point in face.landmark])
                for face in result.multi_face_landmarks or []
            ]
            self.crowded += len(faces) > 1
            if faces:
                self._last = followed(faces, self._last)
                points[index] = self._last[list(MESH_TO_68)]
        return points


def followed(faces: list[np.ndarray], last: np.ndarray | None) -> np.ndarray:
    """Which of some faces, points [P, 2] each, continues `last`: the one within its width, or else the largest."""
    if last is not None:
        away = [float(np.linalg.norm(one.mean(0) - last.mean(0))) for one in faces]
        nearest = int(np.argmin(away))
        if away[nearest] <= float(np.ptp(last[:, 0])):
            return faces[nearest]
    return max(faces, key=lambda one: float(np.prod(np.ptp(one, axis=0))))
