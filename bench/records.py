"""What the handlers write down: one fixed-size record a start, in memory that the runner can read.

The memory is a mapped file, so writing costs a fraction of a microsecond, needs no dump at the end,
and what a killed process had written is still there. Every peer's handlers use the same recorder.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

RECORD = struct.Struct("<qdd")  # index, due (or a mark), time of day; all zero: not written
SLEEP_STARTED = -1.0  # marks instead of a due time, written by the handler that sleeps
SLEEP_DONE = -2.0
SLEEP_S = 1.0
_BLOCK = RECORD.size * 2048


class Recorder:
    """Writes records of this process, in a file made with the first. A forked child gets a file of its own."""

    def __init__(self, directory: Path, capacity: int) -> None:
        self._directory = directory
        self._capacity = capacity
        self._map: mmap.mmap | None = None
        self._slots = itertools.count()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._map, self._slots = None, itertools.count()

    def _open(self) -> mmap.mmap:
        path = self._directory / f"records-{os.getpid()}.bin"
        with path.open("a+b") as file:  # keeps what another thread, first too, has written
            file.truncate(self._capacity * RECORD.size)
            self._map = mmap.mmap(file.fileno(), 0)
        return self._map

    def record(self, index: int, due: float) -> None:
        """Note that job ``index``, due at ``due`` (seconds since the epoch), runs now."""
        now = time.time()
        RECORD.pack_into(self._map or self._open(), next(self._slots) * RECORD.size, index, due, now)


def recorder_from_environment() -> Recorder:
    """The recorder that the runner asked for by BENCH_DIR and BENCH_CAPACITY."""
    return Recorder(Path(os.environ["BENCH_DIR"]), int(os.environ.get("BENCH_CAPACITY", "262144")))


@dataclass(frozen=True, slots=True)
class Record:
    """One start: which job, when it was due and when it ran, in seconds since the epoch."""

    index: int
    due: float
    at: float


class Reader:
    """Reads the records of all processes of a work folder, again and again, each record once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        """All records so far."""
        for path in sorted(self._directory.glob("records-*.bin")):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                self._offsets[path] = file.tell() + self._read_on(file)
        return self.records

    def _read_on(self, file: BinaryIO) -> int:
        size = 0
        while block := file.read(_BLOCK):
            for index, due, at in RECORD.iter_unpack(block[: len(block) // RECORD.size * RECORD.size]):
                if at == 0:  # not written yet: go on here the next time
                    return size
                self.records.append(Record(index, due, at))
                size += RECORD.size
        return size
