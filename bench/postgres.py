"""The PostgreSQL server of a run: fsync and synchronous_commit on, default settings otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from bench.process import TICKS, stat_fields
from bench.tools import Missing
from tests import pg

_ENTRY = re.compile(r"(\d+\.\d+) \[(\S*)\] (\w+):  (?:statement|execute [^:]*): (.*)")
_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "timezone": "UTC",
    # Only how a line of the log begins: its time and its database.
    "log_line_prefix": "%n [%d] ",
}


class Postgres:
    """One server, in which every measurement has a database of its own, made from a template."""

    def __init__(self) -> None:
        if not pg.VERSIONS:
            raise Missing("NOT MEASURED: no PostgreSQL here (the dev extra brings one in a wheel)")
        self._server = pg.Server(pg.NEWEST, settings=_SETTINGS)
        self._server.start()

    def version(self) -> str:
        """What the server says of itself."""
        return str(self._rows("SHOW server_version")[0][0])

    def _rows(self, query: LiteralString, *values: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        with psycopg.connect(self._server.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def _alter(self, query: LiteralString, *names: str) -> None:
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL(query).format(*(sql.Identifier(name) for name in names)))

    def dsn(self, database: str) -> str:
        """The URL of a database."""
        return self._server.dsn(database)

    def create(self, database: str, template: str = "template1") -> None:
        """A new database, in place of an older one of that name. What it wrote is on the disk afterwards."""
        self.drop(database)
        self._alter("CREATE DATABASE {} TEMPLATE {}", database, template)
        self._rows("CHECKPOINT")

    def exists(self, database: str) -> bool:
        """Whether there is a database of that name."""
        return bool(self._rows("SELECT 1 FROM pg_database WHERE datname = %s", database))

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        self._server.drop_database(database)

    def rename(self, database: str, name: str) -> None:
        """Give a database, to which nobody is connected, another name."""
        self._alter("ALTER DATABASE {} RENAME TO {}", database, name)

    def analyze(self, database: str) -> None:
        """Renew the planner's statistics of all tables."""
        self._rows("ANALYZE", database=database)

    def autovacuum(self, on: bool) -> None:
        """Let the server renew statistics by itself, as by default, or not."""
        self._rows("ALTER SYSTEM RESET autovacuum" if on else "ALTER SYSTEM SET autovacuum = off")
        self._rows("SELECT pg_reload_conf()")

    def log_statements(self, database: str) -> None:
        """Have the server log each statement of connections made from now on."""
        self._alter("ALTER DATABASE {} SET log_statement = 'all'", database)

    def statements(self, database: str) -> list[tuple[float, str]]:
        """When and what was carried out there while it was logged: seconds since the epoch, and the statement."""
        found: list[tuple[float, str]] = []
        for line in self._server.log_text().splitlines():
            entry = _ENTRY.match(line)
            if entry and entry[2] == database and entry[3] == "LOG":
                found.append((float(entry[1]), entry[4]))
            elif line.startswith("\t") and found:
                found[-1] = (found[-1][0], found[-1][1] + " " + line.strip())
        return found

    def cpu_seconds(self) -> float:
        """User and system time of the whole server, sessions that have ended included."""
        own_and_ended = sum(int(ticks) for ticks in stat_fields(self._server.pid)[11:15]) / TICKS
        return own_and_ended + _used(_children(self._server.pid))

    def close(self) -> None:
        """Stop it and remove its data."""
        self._server.close()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _used(pids: Iterable[int]) -> float:
    fields = [found for found in map(stat_fields, pids) if found]
    return sum(int(found[11]) + int(found[12]) for found in fields) / TICKS
