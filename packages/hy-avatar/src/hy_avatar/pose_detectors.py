"""People's joints: DWPose through rtmlib (ONNX files of yours), or MediaPipe, whose wheel carries its weights."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.errors import HyError, MissingError

from hy_avatar.faces_mediapipe import MESH_TO_68, solutions

# MediaPipe's 33 body landmarks -> COCO's 17 and the feet (facts, section 5).
_BODY = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
_FEET = (31, 31, 29, 32, 32, 30)
DETECTOR_SIZE = (640, 640)
POSE_SIZE = (288, 384)  # width, height of dw-ll_ucoco_384


class DWPose:
    """DWPose: a YOLOX person detector and a SimCC pose network, from ONNX files (yolox_l, dw-ll_ucoco_384).

    A frame in which the detector sees nobody has nobody. Without a detector the whole frame is one person's box.
    """

    def __init__(
        self,
        pose: Path | str,
        person: Path | str | None = None,
        device: str = "cpu",
        least_score: float = 0.3,
    ) -> None:
        for path in (pose, person):
            if path is not None and not Path(path).is_file():
                # rtmlib would take it for an address to download.
                raise MissingError(
                    f"no such ONNX file: {path}", "DWPose's files are dw-ll_ucoco_384.onnx, yolox_l.onnx"
                )
        try:
            from rtmlib import YOLOX, RTMPose
        except ImportError as problem:
            raise MissingError("DWPose needs rtmlib", 'pip install "hy-avatar[pose]"') from problem
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it loads
                self.pose: Any = RTMPose(
                    str(pose), model_input_size=POSE_SIZE, backend="onnxruntime", device=device
                )
                self.person: Any = None
                if person is not None:
                    self.person = YOLOX(
                        str(person),
                        model_input_size=DETECTOR_SIZE,
                        nms_thr=0.45,
                        score_thr=least_score,
                        backend="onnxruntime",
                        device=device,
                    )
        except Exception as problem:  # onnxruntime's own kinds have no common base
            raise HyError(f"{pose} cannot be loaded as an ONNX network ({str(problem)[:80]})") from problem

    def detect(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PoseDetector.detect`.

        The frame is uint8 [H, W, 3]; points are [people, 133, 2] in pixels, scores [people, 133].
        """
        picture = np.ascontiguousarray(frame[..., ::-1])  # rtmlib takes BGR
        boxes: Any = []
        if self.person is not None:
            boxes = self.person(picture)
            if len(boxes) == 0:
                return np.zeros((0, 133, 2)), np.zeros((0, 133))
        points, scores = self.pose(picture, bboxes=boxes)
        return np.asarray(points, np.float64), np.asarray(scores, np.float64)


class MediaPipePose:
    """One person's body, hands and face by MediaPipe's holistic solution (complexity 1, the weights in the wheel)."""

    def __init__(self, least_score: float = 0.5) -> None:
        self.network: Any = solutions().holistic.Holistic(
            static_image_mode=False, model_complexity=1, min_detection_confidence=least_score
        )

    def detect(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PoseDetector.detect`.

        The frame is uint8 [H, W, 3]; points are [people, 133, 2] in pixels, scores [people, 133].
        """
        result = self.network.process(np.ascontiguousarray(frame))
        if result.pose_landmarks is None:
            return np.zeros((0, 133, 2)), np.zeros((0, 133))
        size = np.array([frame.shape[1], frame.shape[0]], np.float64)
        points, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
        body = result.pose_landmarks.landmark
        for target, source in enumerate((*_BODY, *_FEET)):
            points[0, target] = body[source].x, body[source].y
            scores[0, target] = body[source].visibility
        parts = (
            (23, result.face_landmarks, MESH_TO_68),
            (91, result.left_hand_landmarks, range(21)),
            (112, result.right_hand_landmarks, range(21)),
        )
        for start, found, order in parts:
            if found is not None:
                for offset, source in enumerate(order):
                    points[0, start + offset] = found.landmark[source].x, found.landmark[source].y
                    scores[0, start + offset] = 1.0
        # A joint outside of the picture is a guess.
        scores[(points < 0).any(-1) | (points > 1).any(-1)] = 0
        return points * size, scores
