"""Stages of hy-data: each measures clips; see `hy_data.plugin` for their names."""

from __future__ import annotations
