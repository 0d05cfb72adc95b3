"""Attention over any number of token streams, with no padding and no mask.

Streams are packed: [tokens of all rows, heads, head_dim], rows one after the other. A `Layout` joins the
streams of each row into one sequence, and `attend` lets every row attend to itself only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor


class Layout:
    """How the tokens of several packed streams make one sequence per row.

    Built from one list of row lengths for each stream. When all rows are alike, joining is a `cat` of views;
    otherwise rows are sorted by length, so that those of equal length still attend in one call.
    """

    def __init__(self, *streams: Sequence[int], device: torch.device | str | None = None) -> None:
        self.streams = tuple(tuple(int(n) for n in stream) for stream in streams)
        self.rows = len(self.streams[0])
        totals = [sum(parts) for parts in zip(*self.streams, strict=True)]
        #: Tokens of each row, in the order in which `pack` puts the rows.
        self.lengths = tuple(sorted(totals))
        #: The row that owns each token of the last stream (the text).
        self.owner = torch.repeat_interleave(torch.tensor(self.streams[-1])).to(device)
        self._take = self._put = None
        if any(len(set(stream)) > 1 for stream in self.streams):
            take = self._order(totals)
            self._take, self._put = take.to(device), take.argsort().to(device)

    def _order(self, totals: list[int]) -> Tensor:
        """Index into the streams laid end to end that puts row after row, the shortest first."""
        first, parts = 0, []
        for stream in self.streams:
            parts.append(torch.arange(first, first + sum(stream)).split(stream))
            first += sum(stream)
        rows = sorted(range(self.rows), key=totals.__getitem__)
        return torch.cat([part[row] for row in rows for part in parts])

    def pack(self, *streams: Tensor) -> Tensor:
        """Join streams [tokens, ...] into [all tokens, ...], row after row."""
        if self._take is not None:
            return torch.cat(streams).index_select(0, self._take)
        return torch.cat([x.unflatten(0, (self.rows, -1)) for x in streams], dim=1).flatten(0, 1)

    def unpack(self, x: Tensor) -> tuple[Tensor, ...]:
        """Undo `pack`."""
        if self._put is not None:
            return x.index_select(0, self._put).split([sum(stream) for stream in self.streams])
        parts = x.unflatten(0, (self.rows, -1)).split([stream[0] for stream in self.streams], dim=1)
        return tuple(part.flatten(0, 1) for part in parts)

    def spread(self, x: Tensor) -> Tensor:
        """Give each token of the last stream what its row has: [B, ...] to [tokens, ...], if B > 1."""
        return x if self.rows == 1 else x.index_select(0, self.owner)


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Softmax attention within each row of packed q, k, v [tokens, heads, head_dim]; same shape.

    `lengths` are the rows' token counts, in order. Rows of equal length that stand together are one call.
    """
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    sizes = [length * rows for length, rows in runs]
    out = [
        _sdpa(*(part.unflatten(0, (rows, length)) for part in parts)).flatten(0, 1)
        for (length, rows), *parts in zip(runs, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    ]
    return out[0] if len(out) == 1 else torch.cat(out)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[rows, tokens, heads, head_dim], all rows alike."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
