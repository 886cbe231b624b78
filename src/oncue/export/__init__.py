"""Configurations for an external cron that calls ``POST /api/cron/process-scheduled`` with the bearer secret.

For people who run no worker, or want a second pulse beside one. The secret never stands in what is written: each
target reads it from its own store of secrets, under the name ``CRON_SECRET``.
"""

from __future__ import annotations

from .expressions import CannotExport
from .targets import TARGETS, Target, export, notes

__all__ = ["TARGETS", "CannotExport", "Target", "export", "notes"]
