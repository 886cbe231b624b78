"""Numbers in texts that people read."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: 1 job, 2 jobs, 1,000 jobs."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
