"""The ledger: a plain file to which every process of a test appends what it did. It knows nothing of OnCue."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec


class Line(msgspec.Struct, omit_defaults=True):
    """One event. ``at`` is the machine's time, ``now`` the application's clock, ``due`` the due time (all us)."""

    event: str
    token: str = ""
    at: int = 0
    pid: int = 0
    now: int = 0
    job: int = 0
    attempt: int = 0
    due: int = 0
    group: str | None = None
    note: str = ""


_decode = msgspec.json.Decoder(Line).decode


class Ledger:
    """Appends lines; one write each, so that a killed process leaves whole lines only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def write(self, event: str, token: str = "", *, pid: int = 0, note: str = "", **values: int | str | None) -> None:
        """Append one event of this process, or of ``pid``."""
        line = Line(event, token, time.time_ns() // 1000, pid or os.getpid(), note=note)
        for name, value in values.items():
            setattr(line, name, value)
        os.write(self._fd, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Reader:
    """Reads a ledger on from where it was."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lines: list[Line] = []
        self._rest = b""

    def lines(self) -> list[Line]:
        """Return the whole lines so far, in the order in which they were written; one may just be written."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        self._lines += [_decode(line) for line in whole]
        return self._lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[Line]:
    """Return the lines of a whole ledger, in the order in which they were written."""
    return [_decode(line) for line in path.read_bytes().splitlines()]
