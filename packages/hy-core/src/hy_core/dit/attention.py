"""Attention over any number of token streams, with no padding and no mask.

Streams are packed: [tokens of all rows, heads, head_dim], rows one after the other. A `PackedSequence` joins the
streams of each row into one sequence, and `attend` lets every row attend to itself only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from hy_core.dit.layers import CPU_HAS_BF16
from hy_core.errors import MissingError, UsageError


class PackedSequence:
    """How the tokens of several packed streams make one sequence per row.

    Built from one list of row lengths for each stream. When all rows are alike, joining is a `cat` of views;
    otherwise rows are sorted by length, so that those of equal length still attend in one call. `kernel` is how
    they attend (see `attend`).
    """

    def __init__(
        self, *streams: Sequence[int], device: torch.device | str | None = None, kernel: str = "auto"
    ) -> None:
        self.kernel = kernel
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
            out: tuple[Tensor, ...] = x.index_select(0, self._put).split(
                [sum(stream) for stream in self.streams]
            )
            return out
        parts = x.unflatten(0, (self.rows, -1)).split([stream[0] for stream in self.streams], dim=1)
        return tuple(part.flatten(0, 1) for part in parts)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of every row to itself, for q, k, v [all tokens, heads, head_dim] in the order of `pack`."""
        return attend(q, k, v, self.lengths, self.kernel)

    def spread(self, x: Tensor) -> Tensor:
        """Repeat rows [B, ...] for each token of the last stream: [tokens, ...]; unchanged if B is 1."""
        return x if self.rows == 1 else x.index_select(0, self.owner)


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], kernel: str = "auto") -> Tensor:
    """Softmax attention within each row of packed q, k, v [tokens, heads, head_dim]; same shape.

    `lengths` are the rows' token counts, in order; `kernel` is one of `BACKENDS`, or "auto", the fastest that works.
    """
    return BACKENDS[_best(q, lengths) if kernel == "auto" else kernel](q, k, v, lengths)


def check_kernel(name: str) -> str:
    """Return the name of an attention kernel if it runs here: "auto" or one of `BACKENDS`.

    UsageError for an unknown name; MissingError for a kernel that doesn't run here.
    """
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"unknown attention {name!r}", hint=f"choose from: auto, {', '.join(BACKENDS)}")
    if name != "auto" and (why := problem(name)):
        raise MissingError(f"attention {name!r} can't run here: {why}", hint=_HINTS.get(name, "use auto"))
    return name


def available() -> dict[str, str]:
    """Each kernel, and why it can't run here; empty for those that can."""
    return {name: problem(name) for name in BACKENDS}


@cache
def problem(name: str) -> str:
    """Why a kernel can't run here, determined by running it; empty if it can."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ones = torch.ones(
        5, 2, 64, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
    )
    try:
        same = torch.equal(BACKENDS[name](ones, ones, ones, [2, 3]), ones)
    except ImportError as error:
        return f"{error.name or name} isn't installed"
    except Exception as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    return "" if same else "it gives wrong numbers"


#: Tokens of a row up to which a CPU that trains in bfloat16 keeps the scores: they take less than the MLPs then.
SHORT = 512


def _best(q: Tensor, lengths: Sequence[int]) -> str:
    """The fastest kernel that works for such queries, as measured (docs/explanation/dit.md)."""
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return next((name for name in ("flash3", "flash2") if not problem(name)), "sdpa")
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and CPU_HAS_BF16:
        return "matmul" if not q.requires_grad or max(lengths) <= SHORT else "sdpa"
    return "sdpa"


Dense = Callable[[Tensor, Tensor, Tensor], Tensor]
Packed = Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]


def _by_length(kernel: Dense) -> Packed:
    """Let a kernel for [rows, heads, tokens, head_dim] do packed rows: one call for equal neighbours."""

    def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        runs = [(length, len(list(same))) for length, same in groupby(lengths)]
        sizes = [length * rows for length, rows in runs]
        out = []
        for (length, rows), *run in zip(runs, *(x.split(sizes) for x in (q, k, v)), strict=True):
            dense = kernel(*(x.unflatten(0, (rows, length)).transpose(1, 2) for x in run))
            out.append(dense.transpose(1, 2).flatten(0, 1))
        return out[0] if len(out) == 1 else torch.cat(out)

    return attend


def _matmul(q: Tensor, k: Tensor, v: Tensor, block: int = 256) -> Tensor:
    """Two products and a softmax in fp32, a block of queries at a time, so that no scores pile up."""
    k = k.transpose(-1, -2)
    q = q * q.shape[-1] ** -0.5
    out = []
    for part in q.split(block, dim=-2):
        share = torch.softmax(part @ k, dim=-1, dtype=torch.float32)
        out.append(share.to(v.dtype) @ v)
    return torch.cat(out, dim=-2)


def _flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    if not q.is_cuda:  # compiled for a GPU only: a CPU's compiler needs more than torch brings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return flex_attention(q, k, v)
    return _compiled_flex()(q, k, v)


@cache
def _compiled_flex() -> Dense:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _flash2(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    starts, longest = _starts(lengths, q.device)
    result: Tensor = flash_attn_varlen_func(q, k, v, starts, starts, longest, longest)
    return result


def _flash3(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    from flash_attn_interface import flash_attn_varlen_func

    starts, longest = _starts(lengths, q.device)
    out = flash_attn_varlen_func(q, k, v, starts, starts, longest, longest)
    result: Tensor = out[0] if isinstance(out, tuple) else out  # some releases return the log-sum-exp too
    return result


def _starts(lengths: Sequence[int], device: torch.device) -> tuple[Tensor, int]:
    """Where each row starts, and the end of the last; and the longest row."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device), max(lengths)


BACKENDS: dict[str, Packed] = {
    "sdpa": _by_length(F.scaled_dot_product_attention),
    "flash2": _flash2,
    "flash3": _flash3,
    "flex": _by_length(_flex),
    "matmul": _by_length(_matmul),
}

_HINTS = {
    "flash2": "install hy-core[flash] on a machine with an NVIDIA GPU, or use auto",
    "flash3": "build flash-attn 3 from its repository, for Hopper GPUs, or use auto",
}
