"""The truth: everything that was accepted, seen, said and delivered, for tests to assert. No application reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from oncue.errors import ConfigError

Event = dict[str, Any]


class Ledger:
    """Events in their order, each written before anybody is told of it; with a path, as JSON lines there too.

    Every event has ``n`` (counted from 1), ``at_us`` (microseconds since the epoch, UTC) and ``event``.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._file = None if path is None else path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(f"The ledger {path} can't be written: {error}") from error
        self.events: list[Event] = []
        self._listeners: set[asyncio.Event] = set()
        self._closed = False

    def write(self, at: int, event: str, **facts: Any) -> Event:
        """Note an event; facts that are None are left out."""
        line = {"n": len(self.events) + 1, "at_us": at, "event": event}
        line |= {name: value for name, value in facts.items() if value is not None}
        self.events.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        for listener in self._listeners:
            listener.set()
        return line

    def of(self, *names: str, person: str | None = None) -> list[Event]:
        """Return the events with one of these names (none given: all), of one person where that is given."""
        return [
            line
            for line in self.events
            if (not names or line["event"] in names) and (person is None or line.get("person") == person)
        ]

    async def follow(self, since: int) -> AsyncIterator[list[Event]]:
        """Yield the events after the one numbered ``since``, as they come, until the ledger is closed."""
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while not self._closed:
                news.clear()
                if len(self.events) > since:
                    yield (found := self.events[since:])
                    since += len(found)
                else:
                    await news.wait()
        finally:
            self._listeners.discard(news)

    def close(self) -> None:
        """Close the file, and end all that follow."""
        self._closed = True
        for listener in self._listeners:
            listener.set()
        if self._file is not None:
            self._file.close()
            self._file = None
