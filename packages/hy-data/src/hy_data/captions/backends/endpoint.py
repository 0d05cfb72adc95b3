"""Captions by a vision-language model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import base64
import io
import os
import random
import time
from typing import Any

import httpx
import numpy as np
from hy_core.data import ClipRecord
from hy_core.errors import MissingError, UsageError
from PIL import Image

from hy_data.captions.backends.base import Captioner, ask_until_valid
from hy_data.captions.repair import Repaired
from hy_data.captions.schema import CaptionError, clean

_MOST_BYTES = 4 << 20  # of an answer
_LONGEST_WAIT = 60.0  # seconds between two tries
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class EndpointError(UsageError):
    """The endpoint can't be used; that is no fault of the clip."""


class Endpoint(Captioner):
    """Ask `url`/chat/completions, the frames as JPEG in data URIs.

    `key_variable` names the environment variable with the API key (sent as a bearer token; none if it isn't set).
    Timeouts, broken connections and the answers 408, 409, 425, 429 and 5xx are tried again up to `retries` times, after
    what Retry-After says or 1, 2, 4... seconds, at most 60. `per_minute` limits the requests of this process, 0 for no
    limit. `EndpointError` when the retries are used up and for every other answer that is no success.
    """

    def __init__(
        self,
        url: str,
        model: str,
        frames: int = 8,
        height: int = 360,
        tries: int = 3,
        timeout: float = 120.0,
        retries: int = 4,
        per_minute: float = 0.0,
        key_variable: str = "HY_CAPTION_KEY",
        max_tokens: int = 1024,
        first_wait: float = 1.0,
    ) -> None:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise UsageError(f"--caption-url {url!r} is no http address", "such as http://localhost:8000/v1")
        self.url, self.model, self.frames, self.height, self.tries = (
            url.rstrip("/"),
            model,
            frames,
            height,
            tries,
        )
        self.timeout, self.retries, self.first_wait, self.max_tokens = (
            timeout,
            retries,
            first_wait,
            max_tokens,
        )
        self.gap, self.key_variable = 60 / per_minute if per_minute else 0.0, key_variable
        self._next = 0.0
        self._client: httpx.Client | None = None

    def setup(self) -> None:
        if self._client is None:
            key = os.environ.get(self.key_variable, "")
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self._client = httpx.Client(timeout=self.timeout, headers=headers, follow_redirects=False)

    def caption(self, record: ClipRecord, frames: np.ndarray, seconds: float) -> Repaired:
        pictures = [{"type": "image_url", "image_url": {"url": data_uri(frame)}} for frame in frames]

        def ask(prompt: str) -> str:
            return self.ask([*pictures, {"type": "text", "text": prompt}])

        return ask_until_valid(ask, len(frames), seconds, self.tries)

    def ask(self, content: list[dict[str, Any]]) -> str:
        """Return the model's answer to one user message."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
        }
        self.setup()
        problem = ""
        for attempt in range(self.retries + 1):
            self._wait_for_turn()
            wait = min(self.first_wait * 2**attempt, _LONGEST_WAIT) * random.uniform(0.8, 1.2)
            try:
                status, after, data = self._post(body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if status == 200:
                    return _answer(data)
                problem = f"HTTP {status}: {clean(data.decode('utf-8', 'replace'), 120)}"
                if status not in _AGAIN:
                    raise EndpointError(f"{self.url} refuses the request ({problem})", self._hint(status))
                wait = after if after is not None else wait
            if attempt < self.retries:
                time.sleep(min(wait, _LONGEST_WAIT))
        raise EndpointError(
            f"{self.url} doesn't answer after {self.retries + 1} tries ({clean(problem, 160)})",
            "check that the server runs; a run resumes with what is done",
        )

    def _post(self, body: dict[str, Any]) -> tuple[int, float | None, bytes]:
        """Send a request; return the status, the seconds of Retry-After and the body, of at most 4 MB."""
        data = bytearray()
        assert self._client is not None
        with self._client.stream("POST", f"{self.url}/chat/completions", json=body) as answer:
            for part in answer.iter_bytes():
                data += part
                if len(data) > _MOST_BYTES:
                    raise httpx.DecodingError(f"the answer is over {_MOST_BYTES >> 20} MB")
            after = answer.headers.get("retry-after", "")
            return answer.status_code, float(after) if after.isdecimal() else None, bytes(data)

    def _wait_for_turn(self) -> None:
        now = time.monotonic()
        if self._next > now:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self.gap

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            return f"put the API key into the environment variable {self.key_variable}"
        return "the address ends with /v1, and the model is one that the server has"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}


def data_uri(frame: np.ndarray, quality: int = 85) -> str:
    """Return a frame, uint8 [H, W, 3], as a JPEG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _answer(data: bytes) -> str:
    import json

    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise EndpointError(
            "the endpoint's answer is no chat completion", "is the address one of a chat API?"
        ) from None
    if not isinstance(content, str):
        raise CaptionError("the model answered nothing")
    return content


def made(url: str | None, model: str | None, **values: Any) -> Endpoint:
    """Make the back-end; `MissingError` without address or model."""
    if not url or not model:
        raise MissingError(
            "the backend endpoint needs url and model", 'such as url = "http://localhost:8000/v1"'
        )
    return Endpoint(url, model, **values)
