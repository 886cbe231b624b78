"""What metrics and alerts ask of the database, and the row that decides which process tells of an alert."""

from __future__ import annotations

from typing import Literal, NamedTuple

from oncue.store.steps import Steps, ask, fetch, run

_BUSY = 60 * 1_000_000
_LONGEST_BUSY = 1_800 * 1_000_000


class LateQueue(NamedTuple):
    """The late jobs of a queue: how many, how many of these wait behind others, and since when the first one is due
    (microseconds since the epoch)."""

    queue: str
    jobs: int
    blocked: int
    first: int


class Discards(NamedTuple):
    """How many jobs were discarded, and the last one's id, task and error; None without any."""

    number: int
    last: tuple[int, str, str] | None


class Paused(NamedTuple):
    """A paused queue or task (``what``), and since when; None where that isn't known."""

    what: str
    name: str
    since: int | None


class AlertRow(NamedTuple):
    """An alert as stored; see ``oncue_alert``. Times are microseconds since the epoch."""

    name: str
    since: int
    ended_at: int | None
    told_at: int | None
    busy_until: int | None
    tries: int
    found: str


Event = Literal["swept_at", "rescued_at"]


def note(event: Event, now: int) -> Steps[None]:
    """Remember when somebody swept last, or took jobs back from a dead worker, whichever process it was."""
    yield run("note_event", name=event, now=now)


def last(event: Event) -> Steps[int | None]:
    """Return when that was; None for never."""
    found: int | None = yield ask("last_event", name=event)
    return found


def swept_at() -> Steps[int | None]:
    """Return when the last sweep ended; None where there was none yet."""
    return (yield from last("swept_at"))


def late_jobs(before: int) -> Steps[list[LateQueue]]:
    """Return the queues that have jobs which were to start by then and don't run, though nothing is paused."""
    rows = yield from fetch("late_jobs", before=before)
    return [LateQueue(*row) for row in rows]


def paused() -> Steps[list[Paused]]:
    """Return what is paused."""
    rows = yield from fetch("paused")
    return [Paused(*row) for row in rows]


def schema_version() -> Steps[int]:
    """Return the version of OnCue's tables."""
    found: int = yield ask("schema_version")
    return found


def finished_counts() -> Steps[dict[str, int]]:
    """Return how many jobs are kept as completed, and as cancelled. Reads all of them."""
    found: dict[str, int] = yield from fetch("finished_counts")
    return found


def message_states() -> Steps[list[tuple[str, str, int]]]:
    """Return (channel, state, how many) of all messages that are kept."""
    rows = yield from fetch("message_states")
    return [(channel, state, count) for channel, state, count in rows]


def discards_since(since: int) -> Steps[Discards]:
    """Return what was discarded after that time."""
    count, last = yield from fetch("discards_since", since=since)
    return Discards(count, None if last is None else (last[0], last[1], last[2]))


def alerts(app: str) -> Steps[dict[str, AlertRow]]:
    """Return an application's alerts by name, those that are over too."""
    rows = yield from fetch("alerts", app=app)
    return {row[0]: AlertRow(*row) for row in rows}


def take_alert(app: str, name: str, found: str | None, now: int, again: int) -> Steps[AlertRow | None]:
    """Record how things are (``found`` None: well again), and return the alert where this process is to tell of it.

    One process has a minute for that, and longer after each try that failed; then it is another one's turn. What was
    told before ``again`` is told once more while it lasts.
    """
    if found is not None:
        yield run("raise_alert", app=app, name=name, now=now, found=found)
    else:
        yield run("end_alert", app=app, name=name, now=now)
    row = (yield from alerts(app)).get(name)
    # Of this news: how often an earlier one was tried in vain says nothing about it.
    until = now + min(_LONGEST_BUSY, _BUSY << min(0 if row is None else row.tries, 10))
    text = found or ("" if row is None else row.found)
    mine = yield run("take_alert", app=app, name=name, now=now, until=until, again=again, found=text)
    return (yield from alerts(app)).get(name) if mine else None


def told_alert(app: str, row: AlertRow, now: int) -> Steps[None]:
    """Record that it was told, unless things have changed meanwhile."""
    values = {"since": row.since, "ended": int(row.ended_at is not None)}
    yield run("told_alert", app=app, name=row.name, now=now, **values)
