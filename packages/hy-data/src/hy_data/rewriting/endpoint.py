"""Rewrite with a chat model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import threading
from typing import Any

from hy_core.errors import HyError

from hy_data.captions.backends.endpoint import Endpoint
from hy_data.rewriting.base import ChatRewriter

KEY_VARIABLE = "HY_REWRITE_KEY"


class EndpointRewriter(ChatRewriter):
    """Asks `url`/chat/completions; "http://host:8000/v1#MODEL" names the model ("default" if left out).

    The environment variable HY_REWRITE_KEY holds the API key. A request that takes longer than `seconds` in all is
    given up, also one whose answer trickles; an answer of over 4 MB is refused.
    """

    def __init__(self, where: str, seconds: float = 60.0) -> None:
        url, _, model = where.partition("#")
        self.name, self.seconds = where, seconds
        self.endpoint = Endpoint(
            url, model or "default", timeout=seconds, retries=1, key_variable=KEY_VARIABLE, first_wait=0.5
        )

    def chat(self, system: str, user: str) -> str:
        """Return the answer to a system and a user message."""
        answers: list[str | Exception] = []

        def ask() -> None:
            try:
                answers.append(self.endpoint.ask([{"type": "text", "text": f"{system}\n\n{user}"}]))
            except Exception as error:
                answers.append(error)

        # A thread, because a server that sends a byte now and then meets no timeout of the connection.
        worker = threading.Thread(target=ask, daemon=True)
        worker.start()
        worker.join(self.seconds)
        if not answers:
            raise HyError(f"{self.endpoint.url} did not answer in {self.seconds:g} seconds")
        found: Any = answers[0]
        if isinstance(found, Exception):
            raise found
        return str(found)
