"""LISTEN and NOTIFY while all is well: what is heard, and what it costs."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from oncue.errors import ConfigError
from oncue.wake import open_wake
from oncue.wake.local import LocalWake
from oncue.wake.postgres import PostgresWake, Timing
from tests.store.kit import T0
from tests.wake.conftest import Ear
from tests.wake.pgkit import CHANNEL, execute, hearing, listeners, proved, sender


async def test_a_hint_is_heard_with_its_due_time_when_its_transaction_commits(dsn: str) -> None:
    async with hearing(dsn) as (wake, ear):
        await proved(wake, ear)
        connection = await asyncpg.connect(dsn)
        async with connection.transaction():
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(T0))
            await sender(dsn)(str(T0 + 1))
            await ear.until(lambda heard: T0 + 1 in heard)
            assert T0 not in ear.heard
        await ear.until(lambda heard: T0 in heard)
        await connection.close()
    assert wake.stats.hints == 2


async def test_the_hint_of_a_transaction_that_rolled_back_is_not_heard(dsn: str) -> None:
    async with hearing(dsn) as (wake, ear):
        await proved(wake, ear)
        connection = await asyncpg.connect(dsn)
        turned_back = connection.transaction()
        await turned_back.start()
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(T0))
        await turned_back.rollback()
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(T0 + 1))
        await connection.close()
        await ear.until(lambda heard: T0 + 1 in heard)
        assert T0 not in ear.heard


@pytest.mark.parametrize("payload", ["", "soon", "-1", "1_000", "9" * 30, "१"])
async def test_a_payload_that_is_no_time_says_that_something_changed(dsn: str, payload: str) -> None:
    async with hearing(dsn, timing=Timing()) as (wake, ear):
        await proved(wake, ear)
        await sender(dsn)(payload)
        await ear.anything()
        assert ear.heard == [None]


async def test_probes_of_others_and_other_channels_are_nobodys_hint(dsn: str) -> None:
    async with hearing(dsn, timing=Timing()) as (wake, ear):
        await proved(wake, ear)
        await sender(dsn)("probe:somebody")
        await sender(dsn, "oncue_other")(str(T0))
        await sender(dsn)(str(T0 + 1))
        await ear.anything()
        assert ear.heard == [T0 + 1]
        assert wake.stats.hints == 1


async def test_thousands_of_hints_are_told_as_a_few_with_the_earliest_time_among_them(dsn: str) -> None:
    count = 5000
    async with hearing(dsn, timing=Timing()) as (wake, ear):
        await proved(wake, ear)
        await execute(
            dsn, f"SELECT pg_notify($1, ($2::bigint + n)::text) FROM generate_series({count}, 1, -1) n", CHANNEL, T0
        )
        await ear.until(lambda heard: T0 + 1 in heard)
        assert wake.stats.hints == count
        assert len(ear.heard) < count / 10


async def test_a_hint_that_came_with_something_changed_is_told_as_something_changed(dsn: str) -> None:
    async with hearing(dsn, timing=Timing()) as (wake, ear):
        await proved(wake, ear)
        await execute(dsn, f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(ARRAY['{T0}', '']) payload")
        await ear.until(lambda heard: None in heard)


async def test_schemas_of_one_database_do_not_hear_each_other(dsn: str) -> None:
    other, ear = PostgresWake(f"{dsn}?schema=other", sender(dsn, "oncue_other"), timing=Timing()), Ear()
    await other.start()
    other.listen(ear)
    await proved(other, ear)
    async with hearing(dsn) as (wake, _):
        wake.hint(T0)
        await sender(dsn)(str(T0 + 1))
        await sender(dsn, "oncue_other")(str(T0 + 2))
        await ear.anything()
    assert ear.heard == [T0 + 2]
    await other.close()


async def test_who_does_not_listen_holds_no_connection_and_closing_leaves_none(dsn: str) -> None:
    wake, ear = open_wake(None, dsn, sender(dsn)), Ear()
    before = asyncio.all_tasks()
    await wake.start()
    wake.hint(T0)
    assert asyncio.all_tasks() == before
    assert await listeners(dsn) == []
    unlisten = wake.listen(ear)
    await ear.anything()
    wake.listen(ear)
    assert len(await listeners(dsn)) == 1
    unlisten()
    await wake.close()
    while await listeners(dsn):
        pass  # the server takes a moment to forget a session


async def test_it_can_be_started_again_after_it_was_closed(dsn: str) -> None:
    wake, ear = PostgresWake(dsn, sender(dsn)), Ear()
    for _ in range(2):
        ear.heard.clear()
        await wake.start()
        wake.listen(ear)
        await ear.anything()
        assert wake.healthy is None
        await wake.close()


async def test_a_quiet_channel_costs_one_probe_each_minute(dsn: str) -> None:
    async with hearing(dsn, timing=Timing()) as (wake, ear):
        await proved(wake, ear)
        assert (wake.stats.probes, wake.stats.polls, Timing().probe_every) == (1, 0, 60.0)


async def test_a_server_that_ends_idle_sessions_leaves_ours_alone(dsn: str) -> None:
    name = dsn.rpartition("/")[2]
    await execute(dsn, f"ALTER DATABASE {name} SET idle_session_timeout = '200ms'")
    async with hearing(dsn, timing=Timing()) as (wake, ear):
        await proved(wake, ear)
        # Another session of that kind is ended meanwhile.
        ends = await asyncpg.connect(dsn)
        await execute(dsn, "SELECT pg_sleep(0.6)")
        assert ends.is_closed()
        await sender(dsn)(str(T0))
        await ear.anything()
        assert ear.heard == [T0]
        assert wake.stats.reconnects == 0


SERVER = "postgresql://u:secret@h/db"


@pytest.mark.parametrize(
    ("wake", "database", "said"),
    [
        ("local://", SERVER, "postgresql://"),
        (SERVER, "sqlite:///x.db", "local://"),
        ("postgresql://u:secret@[h/db", SERVER, "no usable URL"),
        ("postgresql://u:secret@h:port/db", SERVER, "no usable host"),
        (None, f"{SERVER}?schema=Ümläut", "schema"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_password(wake: str | None, database: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        open_wake(wake, database, sender(database))
    assert "secret" not in str(refused.value)


def test_beside_a_file_there_is_the_file_watch_and_a_server_needs_a_sender() -> None:
    assert isinstance(open_wake(None, "sqlite:///x.db", None), LocalWake)
    with pytest.raises(TypeError, match="send="):
        open_wake(None, "postgresql://h/db")
