"""Tasks that jobs ask for and this process lacks, as while a newer version is being deployed beside it."""

from __future__ import annotations

import logging
from collections.abc import Container
from time import monotonic

from oncue.job import Claimed

log = logging.getLogger("oncue.worker")
_PAUSE = 60.0


class UnknownTasks:
    """What this process met and can't run: it gives such a job back once, and from then on leaves its task to others.

    Each task is named in the log once, and at most one line a minute tells of new ones.
    """

    def __init__(self, known: Container[str]) -> None:
        self._known = known
        self._met: set[str] = set()
        self._untold: dict[str, int] = {}
        self._told_at = float("-inf")

    def meet(self, job: Claimed) -> None:
        """Note a claimed job whose task is not known."""
        if job.task not in self._met:
            self._met.add(job.task)
            self._untold[job.task] = job.id

    @property
    def names(self) -> list[str]:
        """The tasks to leave alone. One that was registered since is none of them."""
        return sorted(name for name in self._met if name not in self._known)

    def tell(self) -> None:
        """Log what was met, unless that was done less than a minute ago; then a later call does it."""
        if not self._untold or monotonic() - self._told_at < _PAUSE:
            return
        self._told_at = monotonic()
        tasks = ", ".join(f"{name!r} (job {id})" for name, id in self._untold.items())
        self._untold.clear()
        log.warning(
            "jobs ask for tasks that this process has not registered: %s. It leaves them to other workers from now on. "
            "If none has them, deploy the code that declares them, or keep the old names in aliases=(...); or cancel "
            "the jobs. `oncue doctor` tells whether any worker knows them.",
            tasks,
        )
