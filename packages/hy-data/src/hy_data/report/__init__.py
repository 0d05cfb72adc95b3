"""The report of a decided folder: the funnel as a table, and a page with histograms and pictures of dropped clips."""

from __future__ import annotations
