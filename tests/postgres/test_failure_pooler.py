"""Through PgBouncer in transaction mode everything works once the URL says so; where it doesn't, the error does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from oncue import Limit, OnCue, Scheduled
from oncue.errors import StoreError
from tests import pg
from tests.databases import database
from tests.pgfaults import PGBOUNCER, PgBouncer
from tests.postgres.failure import Ledger, application, hold, note, rows, until_rows, working

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer isn't installed (Debian's package pgbouncer)")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with database(f"postgres{pg.NEWEST}", tmp_path) as made:
        yield made.url


def pooled(bouncer: PgBouncer, url: str) -> str:
    return f"{bouncer.dsn(url)}?pgbouncer=true"


# Two connections to the server for all of them: statements of one client run on whichever is free.
FEW = {"default_pool_size": "2"}


async def test_through_a_pooler_the_whole_path_works(url: str) -> None:
    ledger = Ledger()
    with PgBouncer(url, FEW) as bouncer:
        one, other = (application(pooled(bouncer, url), ledger, name) for name in ("one", "other"))
        for app in (one, other):

            @app.task(name="limited", limit=Limit(1000))
            async def limited(number: int) -> None:
                ledger.lines.append(("limited", "w", number, 1))

        async with working(one), working(other):
            singles = [one.schedule(note(one, number), key=f"k{number}") for number in range(20)]
            await asyncio.gather(*singles)
            await other.schedule_many([Scheduled(note(other, number), group="g") for number in range(20, 40)])
            await one.schedule_many([Scheduled(note(one, number), delay=0.2) for number in range(40, 60)])
            await one.schedule_many([one.tasks["limited"].call(number) for number in range(5)])
            await one.schedule(note(one, 99), key="gone", delay=3600)
            assert await other.cancel(key="gone") == "prevented"
            await until_rows(url, "SELECT count(*) FROM oncue_job", wanted=lambda found: found == [(0,)])
            running = await one.schedule(hold(one, 100))
            await ledger.until(lambda: ledger.of("began") == [100])
            assert await other.cancel(id=running.id) == "requested"
            await ledger.until(lambda: ledger.of("told") == [100])
            await until_rows(url, "SELECT 1 FROM oncue_finished WHERE id = %s", running.id)
        states = rows(url, "SELECT state, count(*) FROM oncue_finished GROUP BY 1 ORDER BY 1")
        assert states == [("cancelled", 2), ("completed", 65)]
    assert ledger.counts() == dict.fromkeys(range(60), 1)
    # In order, whichever worker had them.
    assert [number for number in ledger.of("ran") if 20 <= number < 40] == list(range(20, 40))


async def test_connections_of_a_pooler_that_restarts_are_made_anew(url: str) -> None:
    ledger = Ledger()
    with ExitStack() as stack:
        first = stack.enter_context(PgBouncer(url, FEW))
        app = application(pooled(first, url), ledger, busy_timeout=20.0)
        async with app:
            await app.schedule(note(app, 1))
            second = PgBouncer(url, FEW | {"listen_port": str(first.port)})
            second.port = first.port
            await asyncio.to_thread(first.close)
            waiting = asyncio.create_task(app.schedule(note(app, 2)))
            await asyncio.to_thread(stack.enter_context, second)
            await waiting
            async with working(app):
                await ledger.until(lambda: set(ledger.of("ran")) == {1, 2})
    assert ledger.counts() == {1: 1, 2: 1}


@pytest.mark.parametrize("ignored", ["", "lenient"])
async def test_a_pooler_that_the_url_does_not_tell_of_is_named_with_the_remedy(url: str, ignored: str) -> None:
    # A pooler that takes any setting, as some that are hosted do, shows itself by the statements that get lost.
    names = "enable_seqscan,enable_bitmapscan,enable_sort,jit,lock_timeout,idle_in_transaction_session_timeout"
    more = {"ignore_startup_parameters": f"{names},tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count"}
    said = r"a pooler stands between us .* Add pgbouncer=true to the URL"
    with PgBouncer(url, FEW | (more if ignored else {})) as bouncer, pytest.raises(StoreError, match=said):
        await schedule_much([application(bouncer.dsn(url), Ledger(), busy_timeout=1.0) for _ in range(3)])


async def schedule_much(apps: list[OnCue]) -> None:
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app)
        for _ in range(20):
            await asyncio.gather(*(app.schedule(note(app, 1)) for app in apps for _ in range(3)))
