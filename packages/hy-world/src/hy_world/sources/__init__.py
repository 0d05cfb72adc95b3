"""The world as sources of training clips (`hy_core.data.DataSource`)."""

from __future__ import annotations
