"""OnCue: durable scheduled work. The database row is the truth, a light queue wakes, a sweep catches the rest."""

from typing import TYPE_CHECKING, Any

from oncue import errors
from oncue.app import OnCue
from oncue.context import JobContext, current_job
from oncue.limits import Limit
from oncue.retry import Discard, Exponential, Retry, RetryAfter, Snooze
from oncue.scheduling import Scheduled

if TYPE_CHECKING:
    from oncue.bridge.nodejob import NodeJob
    from oncue.source import DueItem

__all__ = [
    "Discard",
    "DueItem",
    "Exponential",
    "JobContext",
    "Limit",
    "NodeJob",
    "OnCue",
    "Retry",
    "RetryAfter",
    "Scheduled",
    "Snooze",
    "current_job",
    "errors",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load what few applications need only when it is asked for, so that ``import oncue`` stays quick."""
    if name == "DueItem":
        from oncue.source import DueItem

        return DueItem
    if name == "NodeJob":
        from oncue.bridge.nodejob import NodeJob

        return NodeJob
    raise AttributeError(f"module 'oncue' has no attribute {name!r}")
