"""OnCue: durable scheduled work. The database row is the truth, a light queue wakes, a sweep catches the rest."""

from oncue import errors
from oncue.app import OnCue
from oncue.context import JobContext, current_job
from oncue.limits import Limit
from oncue.retry import Discard, Exponential, Retry, RetryAfter, Snooze
from oncue.scheduling import Scheduled

__all__ = [
    "Discard",
    "Exponential",
    "JobContext",
    "Limit",
    "OnCue",
    "Retry",
    "RetryAfter",
    "Scheduled",
    "Snooze",
    "current_job",
    "errors",
]
__version__ = "0.1.0"
