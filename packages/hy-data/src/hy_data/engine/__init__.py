"""The engine: runs the stages of a recipe on clips in worker processes, and keeps an account of every clip.

plan      stages of a recipe with their fingerprints and groups
clip      where a clip stands: what the stages found, which comes next
worker    runs a group of stages on one clip
local, ray   start workers on this machine or on a cluster
driver    queues, deadlines, retries
ledger    the account, an SQLite file
rows      rows of the table of scores
"""

from __future__ import annotations
