"""Histograms of scores with their thresholds, and the balance of concepts, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

_BINS = 60
_STYLE: Any = {"svg.hashsalt": "hy", "svg.fonttype": "none", "font.size": 8, "text.parse_math": False}


def histogram(
    values: np.ndarray, thresholds: Mapping[str, float], label: str, clipped: float = 0.005
) -> bytes:
    """Return an SVG of the distribution of a score [N], NaN ignored, with a line for each set's threshold.

    The outermost values, the share `clipped` on each side, are drawn at the rim, so that one value far away doesn't
    hide the others.
    """
    values = values[np.isfinite(values)]
    lines = sorted({*(one for one in thresholds.values() if np.isfinite(one))})
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 1.9), layout="constrained")
        axes = figure.add_subplot()
        if len(values):
            low, high = np.quantile(values, [clipped, 1 - clipped])
            low, high = min([low, *lines]), max([high, *lines])
            if low == high:
                low, high = low - 0.5, high + 0.5
            counts, edges = np.histogram(values.clip(low, high), _BINS, (low, high))
            axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color="#9ab")
        for index, line in enumerate(lines):
            names = ", ".join(name for name, value in thresholds.items() if value == line)
            color = f"C{index % 10}"
            axes.axvline(line, color=color, linewidth=1.2, label=f"{names}: {line:.4g}")
        if lines:
            axes.legend(fontsize=6, frameon=False)
        axes.set_xlabel(label)
        axes.set_ylabel("clips")
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def balance(before: np.ndarray, after: np.ndarray) -> bytes:
    """Return an SVG of the shares [K] of concepts, largest first: of the clips, and as training draws them."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 1.9), layout="constrained")
        axes = figure.add_subplot()
        order = np.argsort(-before, kind="stable")
        rank = np.arange(1, len(before) + 1)
        axes.step(rank, before[order], where="mid", color="#9ab", label="share of clips")
        axes.step(rank, after[order], where="mid", color="C1", label="share of draws")
        axes.set_xlabel("concepts, largest first")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=6, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def effective(shares: Sequence[float] | np.ndarray) -> float:
    """Return how many equally frequent concepts are as diverse as shares [K]: the exponential of the entropy."""
    part = np.asarray(shares, np.float64)
    part = part[part > 0] / part.sum() if part.sum() > 0 else np.ones(1)
    return float(np.exp(-(part * np.log(part)).sum()))


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
