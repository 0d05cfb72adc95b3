"""Decide which clips each training set gets, from the table of scores alone."""

from __future__ import annotations
