"""Proof of death: a file lock that a worker's process holds for as long as it lives, and the system takes back."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Protocol

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock: there only the lease tells
    fcntl = None  # type: ignore[assignment]


log = logging.getLogger("oncue.store")


class LifeLock(Protocol):
    """A held lock."""

    def release(self) -> None:
        """Give the lock back and remove its file."""
        ...


class _FileLock:
    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


class _NoLock:
    def release(self) -> None:
        """Nothing was locked."""


def folder_of_lives(database: str) -> Path:
    """Return this user's folder of lock files for a database server's jobs, which have no folder of their own.

    It is below the environment's ``ONCUE_LOCK_DIR``, else in the folder for temporary files. Where that can't be
    trusted (it is another user's), nothing is locked and only leases tell.
    """
    base = os.environ.get("ONCUE_LOCK_DIR")
    folder = Path(base) if base else Path(tempfile.gettempdir()) / f"oncue-{_user()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not base and (folder.is_symlink() or folder.stat().st_uid != _user()):
            return folder / "not-trusted" / database
    except OSError:
        return folder / "not-there" / database
    return folder / database


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def hold(folder: Path, worker: int) -> LifeLock:
    """Lock this worker's file in ``folder`` until the process ends or ``release`` is called.

    Where that can't be done, its death can't be proved: its jobs then wait for its lease to end.
    """
    if fcntl is None:
        return _NoLock()
    path = folder / f"{worker}.lock"
    try:
        folder.mkdir(exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("no lock file for this worker (%s): should it die, its jobs wait for its lease to end", error)
        return _NoLock()
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        log.warning("%s is locked by another process: is a copy of this database in use on this host?", path)
        return _NoLock()
    return _FileLock(path, fd)


def is_dead(folder: Path, worker: int) -> bool:
    """Tell whether the process that held this worker's lock is proved dead. No file is no proof."""
    if fcntl is None:
        return False
    path = folder / f"{worker}.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def forget(folder: Path, worker: int) -> None:
    """Remove the file of a worker whose jobs were taken back."""
    (folder / f"{worker}.lock").unlink(missing_ok=True)
