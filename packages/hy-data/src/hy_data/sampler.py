"""Draw batches of one bucket each, disjoint between ranks, resumable and re-shardable in mid-epoch.

An epoch is one random order of the clips of each bucket. A step takes the next clips of one bucket for all ranks, which
therefore work on equal shapes. What remains is told by one number a bucket, so a run continues at any step with any
number of ranks or other batch sizes: every clip comes exactly once in an epoch, whatever the splits.

    sampler = BucketSampler(assignment, batch_sizes(assignment.buckets, token_budget=30000), rank=0, ranks=8)
    for batch in sampler: ...             # indices of clips, a list, with `bucket` and `padded`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from hy_core.data import ClipShape
from hy_core.errors import UsageError

from hy_data.buckets import Assignment, tokens

Remainder = Literal["smaller", "pad"]


class BatchIndices(list[int]):
    """Indices of the clips of a rank's batch.

    `bucket` is their bucket. The last `padded` of them are repetitions, which fill up the batch. `epoch` and `state`
    (the sampler's after this batch) are for loaders.
    """

    def __init__(
        self, indices: Sequence[int], bucket: int, padded: int, epoch: int, state: Mapping[str, Any]
    ) -> None:
        super().__init__(indices)
        self.bucket, self.padded, self.epoch, self.state = bucket, padded, epoch, state


class BucketSampler:
    """Batches of clip indices, for `torch.utils.data.DataLoader(batch_sampler=...)`.

    `rows[b]` is the number of clips of a rank's batch of bucket b. A bucket's last batch is divided as evenly as
    possible between the ranks ("smaller") or filled up with clips of the same epoch ("pad"); a rank that would get
    none gets a repeated one in either case, so that all ranks make equally many steps. Repetitions are counted in
    `BatchIndices.padded`. The first batch of an epoch is of the bucket with the most tokens, so that a run that
    doesn't fit into memory fails at once (`largest_first`); the others are drawn by the clips that remain.

    `weights` [N] are relative frequencies: an epoch then has as many draws as there are clips, each clip
    round(weight * N / sum) times, rounded up or down at random; without weights every clip comes once.

    An iteration continues at the state and ends with the epoch; the next one is the next epoch. Equal arguments and
    states give equal batches.
    """

    def __init__(
        self,
        assignment: Assignment,
        rows: Sequence[int],
        *,
        rank: int = 0,
        ranks: int = 1,
        seed: int = 0,
        weights: np.ndarray | None = None,
        remainder: Remainder = "smaller",
        largest_first: bool = True,
    ) -> None:
        if not 0 <= rank < ranks:
            raise UsageError(f"rank {rank} of {ranks} ranks", "ranks count from 0")
        if len(rows) != len(assignment.buckets) or any(one < 1 for one in rows):
            raise UsageError(
                f"batches of {list(rows)[:8]} clips for {len(assignment.buckets)} buckets: give one of each"
            )
        self.assignment, self.rows, self.rank, self.ranks, self.seed = (
            assignment,
            tuple(rows),
            rank,
            ranks,
            seed,
        )
        self.remainder, self.largest_first = remainder, largest_first
        self._members = _members(assignment)
        self._weights = None if weights is None else _checked(weights, assignment)
        if not any(map(len, self._members)):
            raise UsageError(
                "no clip fits a bucket", "; ".join(f"{n} have {r}" for r, n in assignment.reasons.items())
            )
        self.fingerprint = _fingerprint(assignment, self._weights)
        self.epoch = 0
        self._done = np.zeros(len(rows), np.int64)
        self._orders: tuple[int, list[np.ndarray]] | None = None

    def __iter__(self) -> Iterator[BatchIndices]:
        orders = self._order()
        sizes = np.array([len(order) for order in orders])
        largest = int(
            np.argmax([tokens(s) if n else -1 for s, n in zip(self.assignment.buckets, sizes, strict=True)])
        )
        while (left := sizes - self._done).any():
            total = int(self._done.sum())
            if self.largest_first and not total:
                bucket = largest
            else:
                rng = np.random.default_rng((self.seed, 1, self.epoch, total))
                bucket = int(np.searchsorted(np.cumsum(left), rng.integers(left.sum()), side="right"))
            first = int(self._done[bucket])
            taken = min(self.rows[bucket] * self.ranks, int(left[bucket]))
            mine, padded = self._share(orders[bucket], first, taken, self.rows[bucket])
            self._done[bucket] += taken
            epoch = self.epoch
            if (sizes == self._done).all():
                self.set_epoch(epoch + 1)
            yield BatchIndices(mine, bucket, padded, epoch, self.state_dict())
            if self.epoch != epoch:
                return

    def __len__(self) -> int:
        """The number of steps of a whole epoch."""
        return self._steps(np.zeros_like(self._done))

    @property
    def remaining(self) -> int:
        """The number of steps that are left in this epoch."""
        return self._steps(self._done)

    def left_out(self) -> int:
        """Return how many clips of buckets this epoch doesn't draw; only weights leave any out."""
        drawn = np.zeros(len(self.assignment.bucket), bool)
        for order in self._order():
            drawn[order] = True
        return int((self.assignment.bucket >= 0).sum() - drawn.sum())

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch = epoch
        self._done = np.zeros_like(self._done)

    def state_dict(self) -> dict[str, Any]:
        """Return where the sampler is: equal on all ranks, and independent of their number."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "done": self._done.tolist(),
            "fingerprint": self.fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another sampler was; `UsageError` if it was for other clips, buckets or weights."""
        if state["fingerprint"] != self.fingerprint:
            raise UsageError(
                "the state of the sampler is of other clips or buckets",
                "continue with the set and the buckets of the run, or start a new epoch",
            )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
        self._done = np.array(state["done"], np.int64)
        self._orders = None

    def _share(self, order: np.ndarray, first: int, taken: int, rows: int) -> tuple[list[int], int]:
        """The clips of this rank out of `taken` from `first` on, and how many of them are repetitions."""
        ends = [taken * rank // self.ranks for rank in (self.rank, self.rank + 1)]
        mine = order[first + ends[0] : first + ends[1]].tolist()
        wanted = rows if self.remainder == "pad" else 1
        padded = max(0, wanted - len(mine))
        mine += [int(order[(self.rank * rows + number) % len(order)]) for number in range(padded)]
        return mine, padded

    def _steps(self, done: np.ndarray) -> int:
        left = np.array([len(order) for order in self._order()]) - done
        return int((-(-left // (np.array(self.rows) * self.ranks))).sum())

    def _order(self) -> list[np.ndarray]:
        """The order of the clips of each bucket in this epoch."""
        if self._orders is None or self._orders[0] != self.epoch:
            rng = np.random.default_rng((self.seed, 0, self.epoch))
            orders = []
            for members in self._members:
                if self._weights is not None:
                    members = np.repeat(members, _draws(self._weights[members], rng))
                orders.append(rng.permutation(members))
            if not any(map(len, orders)):
                orders = [rng.permutation(members) for members in self._members]
            self._orders = self.epoch, orders
        return self._orders[1]


def batch_sizes(
    buckets: Sequence[ClipShape], *, token_budget: int = 0, clips: int = 0, most: int = 1 << 16, **sizes: int
) -> tuple[int, ...]:
    """Return the clips of a rank's batch by bucket: a fixed number, or as many as have `token_budget` tokens.

    `sizes` are those of `tokens`: time, space, patch. A bucket whose single clip has more tokens than the budget is a
    `UsageError`: a batch can't be smaller.
    """
    if (token_budget > 0) == (clips > 0):
        raise UsageError(
            "a batch has either a number of clips or a budget of tokens", "give one of them, above 0"
        )
    if clips:
        return (clips,) * len(buckets)
    for shape in buckets:
        if (needed := tokens(shape, **sizes)) > token_budget:
            raise UsageError(
                f"a clip of {'x'.join(map(str, shape))} has {needed} tokens, the budget is {token_budget}",
                "raise the budget or leave the bucket out",
            )
    return tuple(min(most, token_budget // tokens(shape, **sizes)) for shape in buckets)


def balanced_weights(concepts: np.ndarray, alpha: float = 0.5, most: float = 5.0) -> np.ndarray:
    """Return weights [N] that balance concepts, int [N], negative for none: size ** -alpha.

    With alpha 0 all clips are equal, with 1 all concepts; no weight is over `most` times the least. A clip without a
    concept has the median weight.
    """
    concepts = np.asarray(concepts)
    has = concepts >= 0
    if not has.any():
        return np.ones(len(concepts))
    counts = np.bincount(concepts[has])
    weights = np.full(len(concepts), np.nan)
    weights[has] = counts[concepts[has]].astype(float) ** -alpha
    weights[~has] = np.median(weights[has])
    return np.asarray(np.minimum(weights / weights.min(), most))


def _draws(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each clip comes: systematic sampling, so that each count is its expectation rounded up or down."""
    ends = np.floor(np.cumsum(weights) + rng.random())
    return np.diff(ends, prepend=0).astype(np.int64)


def _members(assignment: Assignment) -> list[np.ndarray]:
    order = np.argsort(assignment.bucket, kind="stable")
    edges = np.searchsorted(assignment.bucket[order], np.arange(len(assignment.buckets) + 1))
    return [order[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _checked(weights: np.ndarray, assignment: Assignment) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    fits = assignment.bucket >= 0
    if weights.shape != fits.shape or not np.isfinite(weights).all() or (weights < 0).any():
        raise UsageError(
            f"weights of shape {list(weights.shape)} for {len(fits)} clips: one of each, not below 0"
        )
    total = weights[fits].sum()
    if total <= 0:
        raise UsageError("all weights are 0", "give the clips that shall come a weight above 0")
    return weights * (fits.sum() / total)


def _fingerprint(assignment: Assignment, weights: np.ndarray | None) -> str:
    digest = hashlib.sha256(repr(assignment.buckets).encode())
    digest.update(np.ascontiguousarray(assignment.bucket, np.int32).tobytes())
    digest.update(b"" if weights is None else np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:16]
