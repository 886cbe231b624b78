"""Each test of this folder has an application with a clock that it moves."""

from __future__ import annotations

from tests.clocked import app, backend, clock, make

__all__ = ["app", "backend", "clock", "make"]
