"""The judge: reads the ledger and the database with nothing of OnCue, and counts what must never happen."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path

import msgspec
import psycopg

from tests.crash.ledger import Line, read

EVERYBODY = -1
_FOR_EVER = 1 << 62
# An outcome waits 5 ms for others; the commit that follows takes its time on a busy machine.
_ACKED_WITHIN = 5_000_000
_Attempt = tuple[int, int]


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
    retried: int = 0
    """So many of the runs again were asked for by a handler; a death or a silence explains the others."""

    @property
    def wrong(self) -> dict[str, list[str]]:
        """The faults found, by kind; empty where all is well."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, list) and value}


def rows(database: Path | str, query: str, *values: object) -> list[tuple[object, ...]]:
    """Return what a query finds in SQLite's file or PostgreSQL's URL, through a connection of its own."""
    if isinstance(database, str):
        with psycopg.connect(database, options="-c search_path=oncue,public") as server:
            return server.execute(query.encode(), values or None).fetchall()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as conn:
        return conn.execute(query, values).fetchall()


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ledger and the history tell of processes and attempts: until when, and from when on, something held."""

    deaths: dict[int, int]
    away: list[tuple[int, int, int]]
    """Process (or EVERYBODY), from, until: it was stopped, or could not reach the database."""
    over: dict[tuple[str, int, int], int]
    """When the handler of a token's attempt ended in a process."""
    taken: dict[_Attempt, _Attempt]
    """Of attempts that were taken back from their worker: when it had claimed, and when it lost them."""
    reasons: dict[_Attempt, str]
    """What the history says of attempts that did not end their job."""

    def is_void(self, start: Line) -> bool:
        """Whether a zombie began what was taken back from it before: to the database it never happened."""
        return self.taken.get((start.job, start.attempt), (0, _FOR_EVER))[1] <= start.at

    def end(self, start: Line) -> int:
        """When an attempt ended at the latest: its handler, its process, or its claim."""
        return min(
            self.over.get((start.token, start.attempt, start.pid), _FOR_EVER),
            self.deaths.get(start.pid, _FOR_EVER),
            self.taken.get((start.job, start.attempt), (0, _FOR_EVER))[1],
        )

    def was_away(self, start: Line, until: int) -> bool:
        """Whether the process that began this could have lost its claim before ``until``: by death or by silence.

        By death only while the handler ran, or before its outcome had to be recorded.
        """
        death = self.deaths.get(start.pid, _FOR_EVER)
        if death <= until and death - self.over.get((start.token, start.attempt, start.pid), death) <= _ACKED_WITHIN:
            return True
        since = min(start.at, self.taken.get((start.job, start.attempt), (_FOR_EVER, 0))[0])
        return any(pid in (EVERYBODY, start.pid) and begin <= until and end >= since for pid, begin, end in self.away)


def judge(ledger: Path, database: Path | str) -> Verdict:
    """Judge a test that has come to rest."""
    lines = read(ledger)
    starts: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.event == "start":
            starts[line.token].append(line)
    known = _known(lines, database)
    promised = {line.token: line.due for line in lines if line.event == "promised"}
    ended = {line.token for line in lines if line.event == "end"}
    completed = _tokens(database, "SELECT args FROM oncue_finished WHERE state = 'completed'")
    return Verdict(
        lost=sorted(token for token in promised if token not in ended or token not in completed),
        early=_early(starts, promised),
        overlapping=_overlapping(starts, known),
        doubled=_doubled(lines, starts, known),
        ghosts=_ghosts(lines, starts, known),
        torn=_torn(database),
        silent=_silent(database, starts),
        damage=_damage(database),
        promised=len(promised),
        again=sum(max(0, len(found) - 1) for found in starts.values()),
        retried=sum(line.event == "failed" for line in lines),
    )


def _known(lines: Sequence[Line], database: Path | str) -> _Known:
    gone: dict[int, int] = {}
    away: list[tuple[int, int, int]] = []
    for line in lines:
        if line.event in ("frozen", "stopping", "away"):
            gone.setdefault(line.pid, line.at)
        elif line.event in ("thawed", "back") and line.pid in gone:
            away.append((line.pid, gone.pop(line.pid), line.at))
    taken, reasons = {}, {}
    query = "SELECT job, attempt, started_at, finished_at, outcome, reason FROM oncue_attempt"
    for *numbers, outcome, reason in rows(database, query):
        job, attempt, since, until = (int(str(number)) for number in numbers)
        reasons[job, attempt] = f"{outcome}, {reason}"
        if outcome == "rescued":
            taken[job, attempt] = (since, until)
    return _Known(
        {line.pid: line.at for line in lines if line.event in ("dying", "killed")},
        away + [(pid, at, _FOR_EVER) for pid, at in gone.items()],
        {(one.token, one.attempt, one.pid): one.at for one in lines if one.event in ("end", "told", "failed")},
        taken,
        reasons,
    )


def _tokens(database: Path | str, query: str) -> set[str]:
    """The tokens in the arguments that a query finds."""
    return {msgspec.json.decode(str(row[0])).get("token", "") for row in rows(database, query)}


def _early(starts: dict[str, list[Line]], promised: dict[str, int]) -> list[str]:
    return sorted(
        f"{token}: {max(line.due, promised.get(token, 0)) - line.now} us"
        for token, found in starts.items()
        for line in found
        if line.now < max(line.due, promised.get(token, 0))
    )


def _overlapping(starts: dict[str, list[Line]], known: _Known) -> list[str]:
    """Two handlers of a group at a time, each with a claim that nobody had taken back."""
    lanes: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for found in starts.values():
        for line in found:
            if line.group is not None and not known.is_void(line):
                lanes[line.group].append((line.at, known.end(line), line.token))
    clashes = []
    for lane, runs in lanes.items():
        runs.sort()
        clashes += [f"{lane}: {a[2]} and {b[2]}" for a, b in pairwise(runs) if b[0] < a[1]]
    return clashes


def _doubled(lines: Sequence[Line], starts: dict[str, list[Line]], known: _Known) -> list[str]:
    """A start after one whose outcome was durable, or whose process was there all the time and didn't give it back."""
    acked = {(line.job, line.attempt): line.at for line in lines if line.event == "acked"}
    given_back = {(line.token, line.attempt) for line in lines if line.event in ("told", "failed")}
    found = []
    for token, runs in starts.items():
        # A zombie may begin its attempt after the next one has begun elsewhere.
        for before, after in pairwise(sorted(runs, key=lambda line: (line.attempt, line.at))):
            until = max(before.at, after.at)
            explained = (token, before.attempt) in given_back or known.was_away(before, until)
            durable = acked.get((before.job, before.attempt), _FOR_EVER) < after.at
            same = after.attempt == before.attempt or after.job != before.job
            if durable or not explained or same:
                reason = known.reasons.get((before.job, before.attempt), "no reason")
                found.append(f"{token}: attempt {before.attempt} (pid {before.pid}; {reason}) and {after.attempt}")
    return sorted(found)


def _ghosts(lines: Sequence[Line], starts: dict[str, list[Line]], known: _Known) -> list[str]:
    """What was never to run: rolled back, refused, or prevented by a cancel before it began."""
    doomed = {line.token for line in lines if line.event in ("doomed", "refused")}
    prevented = {line.token: line.at for line in lines if line.event == "prevented"}
    return sorted(
        {token for token in doomed if starts.get(token)}
        | {
            token
            for token, at in prevented.items()
            for line in starts.get(token, [])
            if line.at > at and not known.is_void(line)
        }
    )


def _torn(database: Path | str) -> list[str]:
    """The application's own rows and the jobs of the same transactions: each there if and only if the other is."""
    tables = "SELECT name FROM sqlite_master WHERE name = 'note'"
    if isinstance(database, str):
        tables = "SELECT tablename FROM pg_tables WHERE tablename = 'note'"
    if not rows(database, tables):
        return []
    jobs = _tokens(database, "SELECT args FROM oncue_finished UNION ALL SELECT args FROM oncue_job")
    notes = {str(row[0]) for row in rows(database, "SELECT token FROM note")}
    return sorted(notes ^ {token for token in jobs if token.startswith("mine")})


def _damage(database: Path | str) -> list[str]:
    left = [f"job {row[0]} is left {row[1]}" for row in rows(database, "SELECT id, state FROM oncue_job")]
    if isinstance(database, str):
        return left
    return left + [str(row[0]) for row in rows(database, "PRAGMA integrity_check") if row[0] != "ok"]


def _silent(database: Path | str, starts: dict[str, list[Line]]) -> list[str]:
    """Attempts that ran and left neither a row of history nor a reason."""
    query = "SELECT job, attempt FROM oncue_attempt WHERE reason <> '' UNION SELECT id, attempt FROM oncue_finished"
    known = set(rows(database, query))
    return sorted(
        f"{token}: attempt {line.attempt}"
        for token, found in starts.items()
        for line in found
        if (line.job, line.attempt) not in known
    )
