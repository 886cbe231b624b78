"""What the processes of the crash tests are told to do."""

from __future__ import annotations

import signal

import msgspec


class Orders(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one process is to do. Times in seconds. ``database``: SQLite's file, or PostgreSQL's URL.

    ``wake``: the URL of a Redis server, or "" for what the database does by itself.
    """

    role: str
    folder: str
    database: str
    wake: str = ""
    lease: float = 10.0
    concurrency: int = 200
    sweep: float = 3600.0
    busy: float = 10.0
    point: str = ""
    nth: int = 1
    signal: int = signal.SIGKILL
    cron: bool = False
    deaf: bool = False
    seed: int = 0
    count: int = 0
    kind: str = "plain"
    size: int = 0

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.database if self.on_postgres else f"sqlite:///{self.database}"

    @property
    def on_postgres(self) -> bool:
        """Whether the database is PostgreSQL's."""
        return "://" in self.database
