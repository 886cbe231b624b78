"""``oncue bench``: how fast this machine and this database are, in tables of its own that are gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import click

from oncue.app import OnCue
from oncue.cli.common import as_json, fail, only_database, run
from oncue.cli.output import on_terminal, show, to_json
from oncue.cli.progress import working
from oncue.cli.run import collect_less_garbage
from oncue.clock import SECOND, from_us
from oncue.dsn import is_postgres, parse
from oncue.settings import DEFAULT_URL
from oncue.task import Call
from oncue.words import counted
from oncue.worker import WorkerOptions

_CALLERS = 50
_ALONE = 200
_MOST = 1_000_000
_SHORT, _FOR_P99 = 0.5, 100
_FIRST, _APART = SECOND // 2, 20_000
_SCHEMA = "oncue_bench_"


@dataclass
class _Counted:
    """What the handlers saw: when the first began, and how late those with a due time were (microseconds)."""

    wanted: int = 0
    began: float = 0.0
    ran: int = 0
    late: list[int] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, jobs: int) -> None:
        """Begin to count anew."""
        self.wanted, self.ran, self.began = jobs, 0, 0.0
        self.done.clear()

    def one(self) -> None:
        """Count a job."""
        self.began = self.began or time.perf_counter()
        self.ran += 1
        if self.ran >= self.wanted:
            self.done.set()


@click.command(short_help="Measure this machine and this database.")
@click.option("--jobs", type=click.IntRange(1, _MOST), default=10_000, show_default=True, help="To drain.")
@click.option("--timed", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Due one by one.")
@only_database
@as_json
def bench(jobs: int, timed: int, database: str | None, as_json: bool) -> None:
    """Measure schedule(), how fast jobs are done, and how late they start, with a worker in this process.

    Existing jobs are not touched: SQLite gets a file of its own beside the database, PostgreSQL a schema of its own,
    both gone afterwards. It keeps the machine busy for some seconds: not at a busy hour.
    """
    url = database or os.environ.get("DATABASE_URL") or DEFAULT_URL
    collect_less_garbage()
    figures = run(_measured(url, jobs, timed))
    if as_json:
        click.echo(to_json(figures))
        return
    rows = [
        ("schedule(), one after another", f"{figures['schedule_alone_per_s']:,.0f}/s"),
        (f"schedule(), {_CALLERS} callers at once", f"{figures['schedule_together_per_s']:,.0f}/s"),
        (f"{counted(figures['jobs'], 'job')} that did nothing", f"{figures['jobs_per_s']:,.0f}/s"),
        *((f"lateness {name}", f"{figures['lateness'][f'{name}_ms']:.2f} ms") for name in ("p50", "p99", "max")),
    ]
    show([{"what": what, "figure": figure} for what, figure in rows], ("what", "figure"), False)
    if on_terminal():
        click.echo(f"\nOn {figures['database']}; {counted(timed, 'job')} with a due time of their own.")
    for remark in figures["remarks"]:
        click.echo(remark, err=True)


async def _measured(url: str, jobs: int, timed: int) -> dict[str, Any]:
    async with _scratch(url) as scratch:
        app, seen = OnCue(scratch), _Counted()

        @app.task(name="bench")
        async def bench(due: int = 0) -> None:
            if due:
                seen.late.append(app.clock.now() - due)
            seen.one()

        async with app:
            alone = await _scheduled_alone(app, bench.call(), min(jobs, _ALONE))
            together = await _scheduled_together(app, bench.call(), jobs)
            stored = min(jobs, _ALONE) + jobs
            seen.expect(stored)
            async with app.worker(WorkerOptions(name="bench")):
                await _until_done(seen, "running jobs")
            # The worker's end waits until all outcomes are recorded: only then is a job done.
            took = time.perf_counter() - seen.began
            seen.expect(timed)
            async with app.worker(WorkerOptions(name="bench")):
                first = app.clock.now() + _FIRST
                dues = [first + number * _APART for number in range(timed)]
                await asyncio.gather(*(app.schedule(bench.call(due), at=from_us(due)) for due in dues))
                await _until_done(seen, "waiting for due times")
    late = sorted(seen.late)
    spans = {f"{name}_ms": _quantile(late, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
    return {
        "database": _shown(url),
        "jobs": stored,
        "schedule_alone_per_s": round(alone, 1),
        "schedule_together_per_s": round(together, 1),
        "jobs_per_s": round(stored / took, 1),
        "jobs_took_s": round(took, 3),
        "lateness": {**spans, "jobs": len(late)},
        "remarks": _remarks(stored / took, took, timed),
    }


def _remarks(rate: float, took: float, timed: int) -> list[str]:
    """Return what is to be said of figures that too little was measured for."""
    remarks = []
    if took < _SHORT:
        enough = 10 ** len(str(int(rate)))
        remarks.append(
            f"All jobs were done within {took:.2f} s, of which starting and stopping is a part: for a rate that tells "
            f"something, --jobs {min(enough, _MOST)}."
        )
    if timed < _FOR_P99:
        remarks.append(f"A p99 of fewer than {_FOR_P99} jobs is their max: --timed {_FOR_P99} or more.")
    return remarks


async def _scheduled_alone(app: OnCue, call: Call[None], jobs: int) -> float:
    began = time.perf_counter()
    for _ in range(jobs):
        await app.schedule(call)
    return jobs / (time.perf_counter() - began)


async def _scheduled_together(app: OnCue, call: Call[None], jobs: int) -> float:
    left, began = iter(range(jobs)), time.perf_counter()
    with working("storing jobs", jobs) as told:

        async def caller() -> None:
            for number in left:
                await app.schedule(call)
                told(number)

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return jobs / (time.perf_counter() - began)


async def _until_done(seen: _Counted, text: str) -> None:
    with working(text, seen.wanted) as told:
        while not seen.done.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.done.wait(), 0.2)
            told(seen.ran)


def _quantile(spans: list[int], share: float) -> float:
    """Return the span in milliseconds below which that share lies; what began before its due time would be negative."""
    return round(spans[min(len(spans) - 1, int(share * len(spans)))] / 1000, 3)


def _shown(url: str) -> str:
    return parse(url).shown if is_postgres(url) else url


@contextlib.asynccontextmanager
async def _scratch(url: str) -> AsyncIterator[str]:
    """Yield the URL of a database of our own on the same disk or server, and leave nothing of it."""
    if is_postgres(url):
        async with _scratch_schema(url) as scratch:
            yield scratch
        return
    with _folder_beside(url) as name:
        yield f"sqlite:///{quote(str(Path(name) / 'bench.db'))}"


def _folder_beside(url: str) -> tempfile.TemporaryDirectory[str]:
    path = Path(getattr(OnCue(url).store, "path", ".")).resolve()
    try:
        return tempfile.TemporaryDirectory(prefix="oncue-bench-", dir=path.parent)
    except OSError as error:
        fail(f"No scratch database can be made in {path.parent}: {error.strerror}. Name one in a folder of yours.")


@contextlib.asynccontextmanager
async def _scratch_schema(url: str) -> AsyncIterator[str]:
    from oncue.store.postgres.connection import connect

    name = _SCHEMA + secrets.token_hex(6)
    parse(url)
    parts = urlsplit(url)
    options = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "schema"]
    scratch = parts._replace(query=urlencode([*options, ("schema", name)], quote_via=quote)).geturl()
    try:
        yield scratch
    finally:
        connection = await connect(parse(scratch), 10.0)
        try:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
        finally:
            await connection.close()
