"""Distances between sets of sounds in an embedding: Frechet distance, KL divergence, inception score, cosines.

Definitions as in av-benchmark, which the papers on video-to-audio use; all in float64.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hy_core.errors import UsageError

SPLITS, SEED = 10, 2020
"""Of the inception score."""
_TINY = 1e-6


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^0.5) of features [N, D] and [M, D]; at least two rows each."""
    one, other = np.asarray(real, np.float64), np.asarray(made, np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise UsageError(
            f"no Frechet distance between {list(one.shape)} and {list(other.shape)}", "two rows or more"
        )
    shift = one.mean(0) - other.mean(0)
    spread = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (one, other)]
    # The trace of (S1 S2)^0.5 from the symmetric R S2 R with R = S1^0.5: real and stable, also if S1 is singular.
    values, vectors = np.linalg.eigh(spread[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mix = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ spread[1] @ root), 0)).sum()
    return max(float(shift @ shift + np.trace(spread[0]) + np.trace(spread[1]) - 2 * mix), 0.0)


def kl_divergence(real: np.ndarray, made: np.ndarray) -> float:
    """Mean KL(real || made) of the classifier's distributions, from logits [N, K] of pairs in the same order.

    sum p (log p - log(q + 1e-6)), as in the published code: made distributions alone are kept from zero, so that equal
    ones give a little less than 0.
    """
    if np.shape(real) != np.shape(made) or np.ndim(real) != 2 or not len(real):
        raise UsageError(f"no pairs in {list(np.shape(real))} and {list(np.shape(made))}")
    p, q = softmax(real), softmax(made)
    log_p = np.log(p, where=p > 0, out=np.zeros_like(p))  # 0 log 0 is 0
    return float((p * (log_p - np.log(q + _TINY))).sum(1).mean())


def inception_score(made: np.ndarray, splits: int = SPLITS, seed: int = SEED) -> float:
    """Inception score of logits [N, K]: mean over `splits` parts of a shuffle of exp(mean KL(p(y|x) || p(y))).

    Part i goes from i N // splits to (i + 1) N // splits, as in the published code. Fewer sounds than parts, for which
    that has no number, are one part each.
    """
    if np.ndim(made) != 2 or not len(made):
        raise UsageError("no logits for an inception_score score")
    p = softmax(made)[np.random.RandomState(seed).permutation(len(made))]
    splits = min(splits, len(p))
    edges = [index * len(p) // splits for index in range(splits + 1)]
    scores = []
    for start, stop in pairwise(edges):
        part = p[start:stop]
        with np.errstate(invalid="ignore"):  # 0 / 0 where no sound of the part has the class
            share = part / part.mean(0)
        scores.append(np.exp((part * np.log(share, where=part > 0, out=np.zeros_like(part))).sum(1).mean()))
    return float(np.mean(scores))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Mean cosine of paired rows [N, D]: the CLAP score of sounds and captions, or ImageBind's of sounds and clips."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape or one.ndim != 2 or not len(one):
        raise UsageError(f"no pairs in {list(one.shape)} and {list(other.shape)}")
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / np.maximum(lengths, 1e-12)).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    logits = np.asarray(logits, np.float64)
    power = np.exp(logits - logits.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)
