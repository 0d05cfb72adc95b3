"""Text features on disk, so that no training step runs a text encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hy_core.data.keys import text_key
from hy_core.data.store import TensorStore
from hy_core.errors import HyError
from hy_core.text import Encoded, TextEncoder
from rich.console import Console
from rich.progress import track
from torch import Tensor

from hy_train.recent import Recent

_SHARD = 2048  # texts of a file
_ROWS = 32  # texts encoded together
_MEMORY = 1 << 28  # bytes of features held in memory


class TextCache:
    """States and pooled vectors of captions, by the text and the encoders (`hy_core.data.keys.text_key`).

    Pictures (clips of one frame) have features of their own: models have another template for them. Texts that `fill`
    didn't get are encoded where they are asked for, which loads the encoders there: meant for loader processes.
    An instance can be sent to other processes.
    """

    def __init__(self, folder: Path, load: Callable[[], TextEncoder], encoders: str) -> None:
        """Take the folder of the cache, a picklable function that loads the encoders, and their fingerprint."""
        self.store, self.load, self.encoders = TensorStore(folder), load, encoders
        self.encoded = 0
        """The number of texts that this instance ran the encoders for, outside of `fill`."""
        self._encoder: TextEncoder | None = None
        self._recent = Recent(_MEMORY)

    def key(self, text: str, is_picture: bool) -> str:
        """Return the key of a text's features."""
        return text_key(text, is_picture, self.encoders, "own")

    def fill(self, texts: Iterable[tuple[str, bool]]) -> None:
        """Encode the texts, each (text, whether for a picture), that the cache lacks, each once."""
        self.store.check()
        by_key = {self.key(*one): one for one in texts}
        missing = self.store.missing(by_key)
        if not missing:
            return
        wanted = [
            [by_key[key] for key in missing if by_key[key][1] == is_picture] for is_picture in (False, True)
        ]
        parts = [same[first : first + _SHARD] for same in wanted for first in range(0, len(same), _SHARD)]
        with self.load() as encoder:
            for part in track(parts, "encoding captions", console=Console(stderr=True)):
                items: dict[str, Mapping[str, Tensor]] = {}
                for first in range(0, len(part), _ROWS):
                    rows = part[first : first + _ROWS]
                    items |= zip(
                        map(self.key, *zip(*rows, strict=True)), self._encode(encoder, rows), strict=True
                    )
                self.store.add(items)

    def get(self, texts: Sequence[str], is_picture: bool) -> Encoded:
        """Return B encoded texts."""
        items = [self._item(text, is_picture) for text in texts]
        return Encoded([item["states"] for item in items], torch.stack([item["pooled"] for item in items]))

    def length(self, text: str, is_picture: bool) -> int:
        """Return the number of a text's states."""
        return len(self._item(text, is_picture)["states"])

    def _item(self, text: str, is_picture: bool) -> Mapping[str, Tensor]:
        key = self.key(text, is_picture)

        def make(key: str) -> Mapping[str, Tensor]:
            if not self.store.missing([key]):
                return self.store.get(key)
            self._encoder = self._encoder or self.load()
            self.encoded += 1
            return self._encode(self._encoder, [(text, is_picture)])[0]

        return self._recent.get(key, make)

    def _encode(self, encoder: TextEncoder, rows: Sequence[tuple[str, bool]]) -> list[dict[str, Tensor]]:
        with torch.no_grad():
            encoded = encoder.encode([text for text, _ in rows], rows[0][1])
        for (text, _), states in zip(rows, encoded.text, strict=True):
            if not torch.isfinite(states).all():
                raise HyError(f"the text encoder gives NaN for {text[:40]!r}", "its weights are damaged")
        return [
            {"states": states.cpu().clone(), "pooled": pooled.cpu().clone()}
            for states, pooled in zip(encoded.text, encoded.pooled, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}
