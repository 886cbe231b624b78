"""The judge: reads the ledger and the database with nothing of OnCue, and counts what must never happen."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path

from tests.crash.ledger import Line, read

_FOR_EVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that went wrong, by token; and, for people, how much there was and what ran again for a reason."""

    lost: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    promised: int = 0
    again: int = 0

    @property
    def wrong(self) -> dict[str, list[str]]:
        """The faults found, by kind; empty where all is well."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, list) and value}


def rows(database: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """Return what a query finds, through a connection of its own."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as conn:
        return conn.execute(query, values).fetchall()


def judge(ledger: Path, database: Path, zombies: Collection[int] = ()) -> Verdict:
    """Judge a test that has come to rest. ``zombies``: processes that were stopped past their lease."""
    lines = read(ledger)
    by_token: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.token:
            by_token[line.token].append(line)
    promised = {line.token: line.due for line in lines if line.event == "promised"}
    ended = {line.token for line in lines if line.event == "end"}
    completed = {str(row[0]) for row in rows(database, _COMPLETED)}
    starts = {token: [one for one in found if one.event == "start"] for token, found in by_token.items()}
    deaths = {line.pid: line.at for line in lines if line.event in ("dying", "killed")}
    doomed = {line.token for line in lines if line.event in ("doomed", "refused")}
    return Verdict(
        lost=sorted(token for token in promised if token not in ended or token not in completed),
        early=_early(starts, promised),
        overlapping=_overlapping(lines, deaths, zombies),
        doubled=_doubled(lines, starts, deaths, zombies),
        ghosts=sorted(token for token in doomed if starts.get(token)),
        torn=_torn(database),
        silent=_silent(database, starts),
        damage=[str(row[0]) for row in rows(database, "PRAGMA integrity_check") if row[0] != "ok"]
        + [f"job {row[0]} is left {row[1]}" for row in rows(database, "SELECT id, state FROM oncue_job")],
        promised=len(promised),
        again=sum(max(0, len(found) - 1) for found in starts.values()),
    )


_COMPLETED = "SELECT json_extract(args, '$.token') FROM oncue_finished WHERE state = 'completed'"


def _early(starts: dict[str, list[Line]], promised: dict[str, int]) -> list[str]:
    return sorted(
        f"{token}: {max(line.due, promised.get(token, 0)) - line.now} us"
        for token, found in starts.items()
        for line in found
        if line.now < max(line.due, promised.get(token, 0))
    )


def _overlapping(lines: Sequence[Line], deaths: dict[int, int], zombies: Collection[int]) -> list[str]:
    """Two handlers of a group at a time. One runs from its start to its end, or to its process's end."""
    ends = {(one.token, one.attempt, one.pid): one.at for one in lines if one.event in ("end", "told")}
    lanes: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for line in lines:
        if line.event == "start" and line.group is not None and line.pid not in zombies:
            end = ends.get((line.token, line.attempt, line.pid), deaths.get(line.pid, _FOR_EVER))
            lanes[line.group].append((line.at, end, line.token))
    found = []
    for lane, runs in lanes.items():
        runs.sort()
        found += [f"{lane}: {a[2]} and {b[2]}" for a, b in pairwise(runs) if b[0] < a[1]]
    return found


def _doubled(
    lines: Sequence[Line], starts: dict[str, list[Line]], deaths: dict[int, int], zombies: Collection[int]
) -> list[str]:
    """A start after one whose outcome was durable, or whose process neither died nor was stopped nor gave it back."""
    acked = {(line.job, line.attempt): line.at for line in lines if line.event == "acked"}
    told = {(line.token, line.attempt) for line in lines if line.event == "told"}
    found = []
    for token, runs in starts.items():
        for before, after in pairwise(runs):
            explained = before.pid in deaths or before.pid in zombies or (token, before.attempt) in told
            durable = acked.get((before.job, before.attempt), _FOR_EVER) < after.at
            if durable or not explained or after.attempt <= before.attempt:
                found.append(f"{token}: attempt {before.attempt} (pid {before.pid}) and {after.attempt}")
    return sorted(found)


def _torn(database: Path) -> list[str]:
    """The application's own rows and the jobs of the same transactions: each there if and only if the other is."""
    if not rows(database, "SELECT 1 FROM sqlite_master WHERE name = 'note'"):
        return []
    return [str(row[0]) for row in rows(database, _UNMATCHED)]


_UNMATCHED = """
WITH job (token) AS (
  SELECT json_extract(args, '$.token') FROM oncue_finished
  UNION ALL SELECT json_extract(args, '$.token') FROM oncue_job)
SELECT token FROM note WHERE token NOT IN (SELECT token FROM job)
UNION ALL SELECT token FROM job WHERE token LIKE 'mine%' AND token NOT IN (SELECT token FROM note)
"""


def _silent(database: Path, starts: dict[str, list[Line]]) -> list[str]:
    """Attempts that ran and left neither a row of history nor a reason."""
    query = "SELECT job, attempt FROM oncue_attempt WHERE reason <> '' UNION SELECT id, attempt FROM oncue_finished"
    known = set(rows(database, query))
    return sorted(
        f"{token}: attempt {line.attempt}"
        for token, found in starts.items()
        for line in found
        if (line.job, line.attempt) not in known
    )
