"""The interface of caption back-ends, and the questions to language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hy_core.data import ClipRecord

from hy_data.captions.repair import Repaired, read_answer
from hy_data.captions.schema import CaptionError, clean

if TYPE_CHECKING:
    import numpy as np

QUESTION = """\
These are {count} frames of one video clip of {seconds:.1f} seconds, in order. Describe the clip as one JSON object \
with exactly these keys, each a string in English, "" where you are not sure:
"short_description": the main content in one sentence of at most 30 words.
"dense_description": what is seen and how it changes over the clip, in at most 120 words, objective, no guesses.
"background": the surroundings of the main subject.
"style": the kind of film, such as documentary, cinematic, realistic, animation.
"shot_type": the framing, such as aerial shot, close-up, medium shot, long shot.
"lighting": the light, its source and direction.
"atmosphere": the mood, such as cozy, tense, mysterious.
Answer with the JSON object alone."""
AGAIN = "Your last answer could not be used: {problem}. Answer again, with the JSON object alone."


class Captioner:
    """A back-end. `frames` is how many frames of a clip it looks at, `height` their height in pixels."""

    frames: int = 0
    height: int = 360

    def setup(self) -> None:
        """Load a model, once in a worker."""

    def caption(self, record: ClipRecord, frames: np.ndarray, seconds: float) -> Repaired:
        """Return the caption of a clip from frames, uint8 [T, H, W, 3]; `CaptionError` says why there is none."""
        raise NotImplementedError


def ask_until_valid(ask: Callable[[str], str], count: int, seconds: float, tries: int) -> Repaired:
    """Ask a language model for a structured caption, and again with what was wrong, at most `tries` times.

    `CaptionError` names the number of tries and what was wrong with the last answer.
    """
    question = QUESTION.format(count=count, seconds=seconds)
    problem = ""
    for _ in range(tries):
        prompt = f"{question}\n\n{AGAIN.format(problem=problem)}" if problem else question
        try:
            return read_answer(ask(prompt))
        except CaptionError as error:
            problem = error.message
    raise CaptionError(f"no usable caption after {tries} tries: {clean(problem, 160)}")


def tags_of(record: ClipRecord, source: str, quality: str = "") -> Mapping[str, Any]:
    """Return the tags of a caption: its source, the quality in words, and the record's own `tags`."""
    own = record.results.get("tags")
    return {"source": source, "quality": quality} | (dict(own) if isinstance(own, Mapping) else {})
